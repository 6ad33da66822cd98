// The operations on host memory. threads: the maximum number of threads; results are bit-identical for any
// number.
#pragma once

#include <string>
#include <vector>

#include "core/crop.h"
#include "core/decode.h"
#include "core/decode_simcc.h"
#include "core/forest.h"
#include "core/map_features.h"
#include "core/nms.h"
#include "core/oks.h"
#include "core/opinion_features.h"
#include "core/score.h"

namespace oaks::cpu {

void crop(const CropArguments& arguments, int threads);
void decode(const DecodeArguments& arguments, int threads);
void decode_simcc(const SimccArguments& arguments, int threads);
void map_features(const FeatureArguments& arguments, int threads);
void forest(const ForestArguments& arguments, int threads);
void opinion_features(const OpinionArguments& arguments, int threads);
void score(const ScoreArguments& arguments, int threads);
void oks(const OksArguments& arguments, int threads);
void oks_nms(const OksNmsArguments& arguments, int threads);
void box_nms(const BoxNmsArguments& arguments, int threads);

}  // namespace oaks::cpu
