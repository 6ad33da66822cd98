# A CUDA compiler is looked for, not a GPU. Without one the CUDA half is left out, and the summary says so.
set(OAKS_CUDA_SUMMARY "not for CUDA (OAKS_CUDA=off)")
if(NOT OAKS_CUDA STREQUAL "off")
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER AND NOT CMAKE_CUDA_COMPILER MATCHES "nvcc")
    unset(CMAKE_CUDA_COMPILER CACHE) # clang, where there is a toolkit but no nvcc; these flags are nvcc's
    unset(CMAKE_CUDA_COMPILER)
  endif()
  if(NOT CMAKE_CUDA_COMPILER)
    if(OAKS_CUDA STREQUAL "on")
      message(FATAL_ERROR "OAKS_CUDA=on, but no CUDA compiler was found: put nvcc on the PATH or set CUDACXX")
    endif()
    set(OAKS_CUDA_SUMMARY "not for CUDA (no CUDA compiler found)")
  endif()
endif()
if(CMAKE_CUDA_COMPILER AND NOT OAKS_CUDA STREQUAL "off")
  include(cmake/cuda_architectures.cmake)
  set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
  set(CMAKE_CUDA_STANDARD 17)
  enable_language(CUDA)
  add_library(oaks_cuda STATIC csrc/cuda/crop.cu csrc/cuda/decode.cu csrc/cuda/score.cu csrc/cuda/oks.cu csrc/cuda/opinion_features.cu
                               csrc/cuda/nms.cu csrc/cuda/decode_simcc.cu csrc/cuda/map_features.cu
                               csrc/cuda/forest.cu csrc/cuda/device.cu)
  # The short ones in one unit, from CMake 3.31 on: nvcc takes longer to read the headers than to compile these.
  set_target_properties(oaks_cuda PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 0)
  set_source_files_properties(csrc/cuda/crop.cu csrc/cuda/decode.cu csrc/cuda/nms.cu csrc/cuda/map_features.cu
                              PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
  target_include_directories(oaks_cuda PUBLIC csrc)
  # fmad contracts exactly where core/ asks for it, so that host and device round alike.
  target_compile_options(oaks_cuda PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:--fmad=false -lineinfo>)
  target_link_libraries(_native PRIVATE oaks_cuda)
  string(REPLACE ";" " " listed "${CMAKE_CUDA_ARCHITECTURES}")
  target_compile_definitions(_native PRIVATE OAKS_WITH_CUDA "OAKS_CUDA_VERSION=\"${CMAKE_CUDA_COMPILER_VERSION}\""
                                             "OAKS_CUDA_ARCHITECTURES=\"${listed}\"")
  set(OAKS_CUDA_SUMMARY "for CUDA (nvcc ${CMAKE_CUDA_COMPILER_VERSION}; ${listed})")
endif()
message(STATUS "CUDA: ${OAKS_CUDA_SUMMARY}")
