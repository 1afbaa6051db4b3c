// The one macro of the project: how a function that both machines compile is declared.
#pragma once

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define MLEFAST_FN __device__ __forceinline__
#else
#define MLEFAST_FN inline __attribute__((always_inline))
#endif
