// Registers the operations of the CPU or of CUDA. Arrays are passed as addresses, which oaks/ops has checked.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <stdexcept>
#include <string>
#include <tuple>

#include "core/crop.h"
#include "core/decode.h"
#include "core/decode_simcc.h"
#include "core/forest.h"
#include "core/map_features.h"
#include "core/nms.h"
#include "core/oks.h"
#include "core/opinion_features.h"
#include "core/score.h"

namespace oaks::bindings {

namespace py = pybind11;

template <class T>
T* at(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

using Frame = std::tuple<uintptr_t, int64_t, int, int>;  // address, row bytes, height, width

inline std::vector<FrameView> frame_views(const std::vector<Frame>& frames) {
  std::vector<FrameView> views;
  for (const auto& [address, row_bytes, height, width] : frames) {
    views.push_back({at<const uint8_t>(address), row_bytes, height, width});
  }
  return views;
}

template <class T, size_t capacity>
void fill(T (&to)[capacity], const std::vector<T>& from) {
  if (from.size() > capacity) {
    throw std::invalid_argument("keypoints must be at most " + std::to_string(capacity) + ", got " +
                                std::to_string(from.size()));
  }
  std::copy(from.begin(), from.end(), to);
}

// Execution: how to run, a number of threads (int) or a stream (void*). Python passes either as an integer,
// `run`.

template <class Execution>
void register_crop(py::module_& m, void (*launch)(const CropArguments&, Execution)) {
  m.def("crop", [launch](const std::vector<Frame>& frames, uintptr_t boxes, uintptr_t frame_index,
                         uintptr_t pixels, uintptr_t transforms, int64_t count, int height, int width,
                         bool half, bool mirrored, bool bgr, float padding, std::array<float, 3> scale,
                         std::array<float, 3> bias, uintptr_t run) {
    py::gil_scoped_release release;
    const std::vector<FrameView> views = frame_views(frames);
    CropArguments a{views.data(),
                    int(views.size()),
                    at<const float>(boxes),
                    at<const int32_t>(frame_index),
                    at<void>(pixels),
                    at<float>(transforms),
                    count,
                    height,
                    width,
                    half,
                    mirrored,
                    bgr,
                    padding,
                    {scale[0], scale[1], scale[2]},
                    {bias[0], bias[1], bias[2]}};
    launch(a, Execution(run));
  });
}

template <class Execution>
void register_decode(py::module_& m, void (*launch)(const DecodeArguments&, Execution)) {
  m.def("decode",
        [launch](uintptr_t heatmaps, uintptr_t mirrored, uintptr_t transforms, uintptr_t points,
                 uintptr_t heat, uintptr_t averaged, int64_t count, int keypoints, int height, int width,
                 int element, int refine, bool shift_mirrored, std::array<float, 2> x, std::array<float, 2> y,
                 float blur_sigma, const std::vector<int16_t>& pair, uintptr_t run) {
          if (!(blur_sigma >= 0.0f && blur_sigma <= kLargestBlurSigma)) {
            throw std::invalid_argument("blur_sigma must be from 0 to " + std::to_string(kLargestBlurSigma) +
                                        ", got " + std::to_string(blur_sigma));
          }
          py::gil_scoped_release release;
          DecodeArguments a{at<const void>(heatmaps),
                            at<const void>(mirrored),
                            at<const float>(transforms),
                            at<float>(points),
                            at<float>(heat),
                            at<void>(averaged),
                            count,
                            keypoints,
                            height,
                            width,
                            Element(element),
                            Refine(refine),
                            shift_mirrored,
                            {x[0], x[1]},
                            {y[0], y[1]},
                            make_blur(blur_sigma),
                            {}};
          fill(a.pair, pair);
          launch(a, Execution(run));
        });
}

template <class Execution>
void register_decode_simcc(py::module_& m, void (*launch)(const SimccArguments&, Execution)) {
  m.def("decode_simcc",
        [launch](uintptr_t x, uintptr_t y, uintptr_t mirrored_x, uintptr_t mirrored_y, uintptr_t transforms,
                 uintptr_t points, uintptr_t heat, int64_t count, int keypoints, int x_bins, int y_bins,
                 int element, float bin_size, const std::vector<int16_t>& pair, uintptr_t run) {
          py::gil_scoped_release release;
          SimccArguments a{at<const void>(x),
                           at<const void>(y),
                           at<const void>(mirrored_x),
                           at<const void>(mirrored_y),
                           at<const float>(transforms),
                           at<float>(points),
                           at<float>(heat),
                           count,
                           keypoints,
                           x_bins,
                           y_bins,
                           Element(element),
                           bin_size,
                           {}};
          fill(a.pair, pair);
          launch(a, Execution(run));
        });
}

template <class Execution>
void register_map_features(py::module_& m, void (*launch)(const FeatureArguments&, Execution)) {
  m.def("map_features",
        [launch](uintptr_t heatmaps, uintptr_t mirrored, uintptr_t points, uintptr_t heat, uintptr_t boxes,
                 uintptr_t frame_sizes, uintptr_t features, int64_t count, int keypoints, int height,
                 int width, int element, bool shift_mirrored, const std::vector<int16_t>& pair,
                 const std::vector<uint8_t>& left, uintptr_t run) {
          py::gil_scoped_release release;
          FeatureArguments a{at<const void>(heatmaps),
                             at<const void>(mirrored),
                             at<const float>(points),
                             at<const float>(heat),
                             at<const float>(boxes),
                             at<const float>(frame_sizes),
                             at<float>(features),
                             count,
                             keypoints,
                             height,
                             width,
                             Element(element),
                             shift_mirrored,
                             {},
                             {}};
          fill(a.pair, pair);
          fill(a.left, left);
          launch(a, Execution(run));
        });
}

template <class Execution>
void register_forest(py::module_& m, void (*launch)(const ForestArguments&, Execution)) {
  m.def("forest",
        [launch](uintptr_t features, uintptr_t splits, uintptr_t trees, uintptr_t leaves, uintptr_t values,
                 int64_t count, int feature_count, int tree_count, uintptr_t run) {
          py::gil_scoped_release release;
          launch({at<const float>(features), at<const ForestSplit>(splits), at<const ForestTree>(trees),
                  at<const float>(leaves), at<float>(values), count, feature_count, tree_count},
                 Execution(run));
        });
}

template <class Execution>
void register_opinion_features(py::module_& m, void (*launch)(const OpinionArguments&, Execution)) {
  m.def("opinion_features",
        [launch](uintptr_t features, uintptr_t points, uintptr_t second_points, uintptr_t second_heat,
                 uintptr_t boxes, uintptr_t out, int64_t count, int keypoints, int feature_count,
                 const std::vector<float>& sigmas, const std::vector<uint8_t>& left, uintptr_t run) {
          py::gil_scoped_release release;
          OpinionArguments a{at<const float>(features),
                             at<const float>(points),
                             at<const float>(second_points),
                             at<const float>(second_heat),
                             at<const float>(boxes),
                             at<float>(out),
                             count,
                             keypoints,
                             feature_count,
                             {},
                             {}};
          fill(a.sigmas, sigmas);
          fill(a.left, left);
          launch(a, Execution(run));
        });
}

template <class Execution>
void register_score(py::module_& m, void (*launch)(const ScoreArguments&, Execution)) {
  m.def("score", [launch](uintptr_t values, uintptr_t visibility, uintptr_t box_scores, uintptr_t scores,
                          int64_t count, int keypoints, uintptr_t run) {
    py::gil_scoped_release release;
    launch({at<const float>(values), at<const float>(visibility), at<const float>(box_scores),
            at<float>(scores), count, keypoints},
           Execution(run));
  });
}

template <class Execution>
void register_oks(py::module_& m, void (*launch)(const OksArguments&, Execution)) {
  m.def("oks", [launch](uintptr_t a, uintptr_t b, uintptr_t areas, uintptr_t visible, uintptr_t similarity,
                        int64_t a_count, int64_t b_count, int keypoints, const std::vector<float>& sigmas,
                        uintptr_t run) {
    py::gil_scoped_release release;
    OksArguments arguments{at<const float>(a),
                           at<const float>(b),
                           at<const float>(areas),
                           at<const uint8_t>(visible),
                           at<float>(similarity),
                           a_count,
                           b_count,
                           keypoints,
                           {}};
    fill(arguments.sigmas, sigmas);
    launch(arguments, Execution(run));
  });
}

inline Candidates candidates(uintptr_t scores, uintptr_t frame_index, uintptr_t kept, int64_t count,
                             float threshold) {
  return {at<const float>(scores), at<const int32_t>(frame_index), at<int64_t>(kept), count, threshold};
}

template <class Execution>
void register_oks_nms(py::module_& m, void (*launch)(const OksNmsArguments&, Execution)) {
  m.def("oks_nms", [launch](uintptr_t points, uintptr_t scores, uintptr_t areas, uintptr_t frame_index,
                            uintptr_t kept, int64_t count, int keypoints, float threshold,
                            const std::vector<float>& sigmas, uintptr_t run) {
    py::gil_scoped_release release;
    OksNmsArguments a{candidates(scores, frame_index, kept, count, threshold),
                      at<const float>(points),
                      at<const float>(areas),
                      keypoints,
                      {}};
    fill(a.sigmas, sigmas);
    launch(a, Execution(run));
  });
}

template <class Execution>
void register_box_nms(py::module_& m, void (*launch)(const BoxNmsArguments&, Execution)) {
  m.def("box_nms", [launch](uintptr_t boxes, uintptr_t scores, uintptr_t frame_index, uintptr_t kept,
                            int64_t count, float threshold, uintptr_t run) {
    py::gil_scoped_release release;
    launch({candidates(scores, frame_index, kept, count, threshold), at<const float>(boxes)}, Execution(run));
  });
}

}  // namespace oaks::bindings
