# The hot loops are compiled once for each instruction set and chosen when the program runs,
# so that one build serves every machine.
add_library(oaks_cpu STATIC csrc/cpu/crop.cpp csrc/cpu/decode.cpp csrc/cpu/score.cpp csrc/cpu/oks.cpp csrc/cpu/opinion_features.cpp
                            csrc/cpu/nms.cpp csrc/cpu/decode_simcc.cpp csrc/cpu/map_features.cpp csrc/cpu/forest.cpp
                            csrc/cpu/threads.cpp csrc/cpu/dispatch.cpp)
# One unit: the compiler takes longer to read the headers than to compile these files.
set_target_properties(oaks_cpu PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 0)
target_include_directories(oaks_cpu PUBLIC csrc)
target_link_libraries(oaks_cpu PUBLIC Threads::Threads)

function(oaks_add_instruction_set name)
  add_library(oaks_cpu_${name} OBJECT csrc/cpu/kernels.cpp)
  target_include_directories(oaks_cpu_${name} PRIVATE csrc)
  target_compile_definitions(oaks_cpu_${name} PRIVATE OAKS_ISA=${name})
  target_compile_options(oaks_cpu_${name} PRIVATE ${ARGN})
  target_link_libraries(oaks_cpu PRIVATE oaks_cpu_${name})
endfunction()

oaks_add_instruction_set(baseline)
set(OAKS_CPU_SUMMARY "baseline")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64" AND NOT MSVC)
  oaks_add_instruction_set(avx2 -mavx2 -mfma -mf16c)
  oaks_add_instruction_set(avx512 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c -mprefer-vector-width=512
                          -Wno-maybe-uninitialized -Wno-uninitialized) # false alarms of GCC 12 in its own header
  target_compile_definitions(oaks_cpu PRIVATE OAKS_X86_DISPATCH)
  set(OAKS_CPU_SUMMARY "baseline, AVX2, AVX-512, chosen when it runs")
endif()
target_link_libraries(_native PRIVATE oaks_cpu)
