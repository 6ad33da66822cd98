// The instruction sets that the hot loops are compiled for, and which of them is used.
#pragma once

#include <string>
#include <vector>

#include "core/crop.h"
#include "core/decode.h"
#include "core/decode_simcc.h"
#include "core/forest.h"
#include "core/map_features.h"

namespace oaks::cpu {

// Working memory of one thread during a call. Its functions are not inline: see the top of kernels.cpp.
class Scratch {
 public:
  float* floats(size_t count);
  int* indices(size_t count);

 private:
  std::vector<float> floats_;
  std::vector<int> indices_;
};

// The functions that kernels.cpp provides for each instruction set.
struct Kernels {
  // Decodes the map of one keypoint of one person: map = person * keypoints + keypoint.
  void (*decode_map)(const DecodeArguments&, int64_t map);
  // Rows first_row to last_row - 1 of one box's crop.
  void (*crop_rows)(const CropArguments&, int64_t box, int first_row, int last_row, Scratch&);
  // All features of one person's keypoints.
  void (*person_features)(const FeatureArguments&, int64_t person, Scratch&);
  // The forest's values of rows first to last - 1.
  void (*forest_rows)(const ForestArguments&, int64_t first, int64_t last, Scratch&);
  // Decodes one keypoint of one person: index = person * keypoints + keypoint.
  void (*decode_simcc_keypoint)(const SimccArguments&, int64_t index);
};

const Kernels& kernels();

// The instruction sets that this processor supports, the fastest last; the first is always "baseline".
std::vector<std::string> instruction_sets();
std::string instruction_set();
// Throws std::invalid_argument for a name that is not among instruction_sets().
void use_instruction_set(const std::string& name);

}  // namespace oaks::cpu
