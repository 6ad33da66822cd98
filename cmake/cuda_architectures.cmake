# The GPUs to build for, where CMAKE_CUDA_ARCHITECTURES does not name them: those of this machine, or else PTX that every
# GPU from 7.5 on compiles at first use. "common" is machine code for all common ones.
execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --list-gpu-arch OUTPUT_VARIABLE known)

if(CMAKE_CUDA_ARCHITECTURES STREQUAL "common")
  # Machine code for the common architectures that this compiler knows, PTX for the newest of them, and for
  # 10.0: devices of 10.3 and 11.0 take neither the newer PTX nor machine code of 10.0.
  set(architectures "")
  foreach(architecture 75 80 86 89 90 100 120)
    if(known MATCHES "compute_${architecture}[^0-9]")
      list(APPEND architectures ${architecture}-real)
      set(newest ${architecture})
    endif()
  endforeach()
  if(100-real IN_LIST architectures AND newest GREATER 100)
    list(APPEND architectures 100-virtual)
  endif()
  list(APPEND architectures ${newest}-virtual)
  set(CMAKE_CUDA_ARCHITECTURES ${architectures})
elseif(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES "")
  execute_process(COMMAND nvidia-smi --query-gpu=compute_cap --format=csv,noheader
                  OUTPUT_VARIABLE present ERROR_QUIET RESULT_VARIABLE status)
  if(status EQUAL 0)
    string(REGEX MATCHALL "[0-9]+\\.[0-9]+" present "${present}")
    foreach(capability ${present})
      string(REPLACE "." "" architecture ${capability})
      if(known MATCHES "compute_${architecture}[^0-9]")
        list(APPEND CMAKE_CUDA_ARCHITECTURES ${architecture}-real)
      else() # newer than the compiler
        list(APPEND CMAKE_CUDA_ARCHITECTURES 75-virtual)
      endif()
    endforeach()
    list(REMOVE_DUPLICATES CMAKE_CUDA_ARCHITECTURES)
  endif()
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 75-virtual)
  endif()
endif()
