// The operations on device memory. Each call only launches work on `stream`, a cudaStream_t of the outputs'
// device, and returns before the work is done. Throws std::runtime_error with CUDA's error name if a
// launch fails.
#pragma once

#include "core/crop.h"
#include "core/decode.h"
#include "core/decode_simcc.h"
#include "core/forest.h"
#include "core/map_features.h"
#include "core/nms.h"
#include "core/oks.h"
#include "core/opinion_features.h"
#include "core/score.h"

namespace oaks::cuda {

using Stream = void*;

// A box that is not finite gives a black crop and a NaN transform; a frame_index out of range gives a black
// crop.
void crop(const CropArguments& arguments, Stream stream);
void decode(const DecodeArguments& arguments, Stream stream);
void decode_simcc(const SimccArguments& arguments, Stream stream);
void map_features(const FeatureArguments& arguments, Stream stream);
void forest(const ForestArguments& arguments, Stream stream);
void opinion_features(const OpinionArguments& arguments, Stream stream);
void score(const ScoreArguments& arguments, Stream stream);
void oks(const OksArguments& arguments, Stream stream);
void oks_nms(const OksNmsArguments& arguments, Stream stream);
// A box that is not finite is ranked last and overlaps nothing.
void box_nms(const BoxNmsArguments& arguments, Stream stream);

}  // namespace oaks::cuda
