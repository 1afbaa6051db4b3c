"""The emulator finds what it is there to find: kernels with a planted bug, each of which must be reported."""

from __future__ import annotations

import mmap

import ml_dtypes
import numpy as np
import pytest
from cuda_emulator.device import CONVERSIONS
from cuda_emulator.emulator import EmulatorError, Module, Schedule
from cuda_tests.kernel_cases import needs_emulator

pytestmark = needs_emulator
UNRESERVED = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000  # MAP_NORESERVE, which Python 3.10 does not name

# A sum over a block: 16-byte loads with a head and a tail, shuffles, shared memory, two barriers.
SUM = r"""
inline __device__ float warp_sum(float x) {
  for (int distance = TOP; distance > 0; distance /= 2) x += __shfl_xor_sync(MASK, x, distance);
  return x;
}
extern "C" __global__ void block_sum(const float* x, float* out, int n) {
  __shared__ float sums[32];
  const int t = threadIdx.x, lane = t % 32, warp = t / 32, warps = THREADS / 32;
  const float* row = x + ROW;
  int head = HEAD;
  if (head > n) head = n;
  float sum = 0;
  EARLY
  if (t < head) sum += row[t];
  const uint4* vectors = reinterpret_cast<const uint4*>(row + head);
  const int count = (n - head) / 4;
  for (int i = t; i < count EXTRA; i += THREADS) {
    const uint4 v = vectors[i];
    sum += __uint_as_float(v.x) + __uint_as_float(v.y) + __uint_as_float(v.z) + __uint_as_float(v.w);
  }
  for (int i = head + 4 * count + t; i < n; i += THREADS) sum += row[i];
  sum = warp_sum(sum);
  if (lane == 0) sums[warp] = sum;
  FIRST_BARRIER
  if (warp == 0) {
    sum = warp_sum(GUARD sums[lane] OTHERWISE);
    if (lane == 0) sums[0] = sum;
  }
  SECOND_BARRIER
  OUTPUT
}
"""
SOUND = {
    "TOP": "16",
    "MASK": "0xffffffffu",
    "THREADS": "256",
    "ROW": "static_cast<long long>(blockIdx.x) * n",
    "HEAD": "static_cast<int>((16 - reinterpret_cast<unsigned long long>(row) % 16) % 16 / 4)",
    "EARLY": "",
    "EXTRA": "",
    "FIRST_BARRIER": "__syncthreads();",
    "SECOND_BARRIER": "__syncthreads();",
    "GUARD": "lane < warps ?",
    "OTHERWISE": ": 0.0f",
    "OUTPUT": "if (t == 0) out[blockIdx.x] = sums[0];",
}
PLANTED = {
    "missing first barrier": ({"FIRST_BARRIER": ""}, "race on shared|never written"),
    "missing second barrier": (
        {"SECOND_BARRIER": "", "OUTPUT": "if (t == 40) out[blockIdx.x] = sums[0];"},
        "race on shared",
    ),
    "mask of half a warp": ({"MASK": "0xffffu"}, "not in its own mask"),
    "lanes out of the mask are read": ({"MASK": "(lane_of() < 16 ? 0xffffu : 0xffff0000u)"}, "not in mask"),
    "one vector too many": ({"EXTRA": "+ 1"}, "out of bounds"),
    "a row past the end": ({"ROW": "static_cast<long long>(blockIdx.x + 1) * n"}, "out of bounds"),
    "vectors from an odd address": ({"HEAD": "0"}, "misaligned"),
    "shared memory of warps that are not there": ({"GUARD": "", "OTHERWISE": ""}, "never written"),
    "an exit before a barrier": ({"EARLY": "if (t >= 200) return;"}, "have exited|not in mask"),
    "a barrier for some": ({"EARLY": "if (t < 100) __syncthreads();"}, "divergent|deadlock|disagree"),
    "everybody writes the result": ({"OUTPUT": "out[blockIdx.x] = sums[0] + t;"}, "race on"),
    "all blocks write one result": ({"OUTPUT": "if (t == 0) out[0] = sums[0];"}, "race on"),
    "a write to what is only read": (
        {"OUTPUT": "if (t == 0) const_cast<float*>(x)[blockIdx.x] = sums[0];"},
        "read-only",
    ),
    "an endless loop": ({"EARLY": "while (reinterpret_cast<const volatile float*>(x)[t] == x[t]) {}"}, "budget"),
    "out of a shared array": ({"OUTPUT": "sums[32 + t / 256] = 1; if (t == 0) out[blockIdx.x] = sums[0];"}, "bounds"),
}
WRONG_RESULT = {"half of the lanes": {"TOP": "8"}}


def planted(**changes: str) -> str:
    source = SUM
    for name, text in {**SOUND, **changes}.items():
        source = source.replace(name, text)
    return "inline int lane_of() { return threadIdx.x % 32; }\n" + source


def launch(source: str, n: int = 1001, blocks: int = 3, schedule: Schedule | None = None):
    x = np.random.default_rng(0).standard_normal((blocks, n)).astype(np.float32)
    x.flags.writeable = False
    out = np.full(blocks, np.nan, np.float32)
    schedule = (schedule or Schedule()).but(budget=1_000_000)
    Module(source).launch("block_sum", blocks, 256, 0, [x, out, np.int32(n)], schedule)
    return out, x.sum(-1)


@pytest.mark.parametrize("order", ["forward", "backward", "random"])
@pytest.mark.parametrize("preempt", [0, 200])
def test_a_sound_kernel_passes(order, preempt):
    for n in (1, 3, 4, 1000, 1001, 4099):
        got, want = launch(planted(), n, schedule=Schedule(order, preempt))
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bug", PLANTED)
def test_every_planted_bug_is_found(bug):
    changes, message = PLANTED[bug]
    with pytest.raises(EmulatorError, match=message) as caught:
        launch(planted(**changes))
    assert "unit.cpp" in str(caught.value) or "line=" in str(caught.value)


@pytest.mark.parametrize("bug", WRONG_RESULT)
def test_what_is_no_error_of_access_is_a_wrong_result(bug):
    got, want = launch(planted(**WRONG_RESULT[bug]))
    assert (np.abs(got - want) > 1e-3).any()


def test_an_index_of_32_bits_that_overflows():
    """9 GB of address space, of which one row is touched."""
    n, blocks = 32000, 70001
    memory = mmap.mmap(-1, n * blocks * 4, flags=UNRESERVED)
    x = np.frombuffer(memory, np.float32).reshape(blocks, n)
    x[-1] = 1
    x.flags.writeable = False
    out = np.zeros(blocks, np.float32)
    last = Schedule(blocks=[blocks - 1])
    Module(planted()).launch("block_sum", blocks, 256, 0, [x, out, np.int32(n)], last)
    assert out[-1] == n
    narrow = planted(ROW="static_cast<int>(blockIdx.x * static_cast<unsigned>(n))")
    with pytest.raises(EmulatorError, match="out of bounds"):
        Module(narrow).launch("block_sum", blocks, 256, 0, [x, out, np.int32(n)], last)


HAND_OVER = r"""
extern "C" __global__ void reverse(const float* x, float* out) {
  extern __shared__ float slots[];
  const int t = threadIdx.x, warp = t / 32 * 32;
  slots[t] = x[t];
  BARRIER
  out[t] = slots[warp + (31 - t % 32)];
}
"""


@pytest.mark.parametrize(
    ("barrier", "shared", "message"),
    [
        ("__syncwarp();", 512, None),
        ("__syncthreads();", 512, None),
        ("", 512, "race on shared"),
        ("__shfl_sync(0xffffffffu, 0, 0);", 512, "race on shared"),  # a shuffle orders no memory
        ("__syncwarp(t % 2 ? 0xaaaaaaaau : 0x55555555u);", 512, "race on shared"),
        ("__syncwarp();", 256, "out of bounds"),
    ],
)
def test_dynamic_shared_memory_and_barriers_of_a_warp(barrier, shared, message):
    x, out = np.arange(128, dtype=np.float32), np.zeros(128, np.float32)
    module = Module(HAND_OVER.replace("BARRIER", barrier))
    if message is None:
        module.launch("reverse", 1, 128, shared, [x, out])
        np.testing.assert_array_equal(out.reshape(4, 32), x.reshape(4, 32)[:, ::-1])
    else:
        with pytest.raises(EmulatorError, match=message):
            module.launch("reverse", 1, 128, shared, [x, out])


IN_PLACE = r"""
extern "C" __global__ void shift(float* x, int n) {
  const int t = threadIdx.x;
  const float next = t + 1 < n ? x[t + 1] : 0;
  BARRIER
  x[t] = next;
}
"""


@pytest.mark.parametrize(
    ("barrier", "threads", "sound"),
    [("__syncthreads();", 64, True), ("", 64, False), ("__syncwarp();", 32, True), ("__syncwarp();", 64, False)],
)
def test_a_write_after_a_read_of_global_memory_needs_a_barrier(barrier, threads, sound):
    x = np.arange(threads, dtype=np.float32)
    module = Module(IN_PLACE.replace("BARRIER", barrier))
    if sound:
        module.launch("shift", 1, threads, 0, [x, np.int32(threads)])
        np.testing.assert_array_equal(x, [*range(1, threads), 0])
    else:
        with pytest.raises(EmulatorError, match="race on argument 0"):
            module.launch("shift", 1, threads, 0, [x, np.int32(threads)])


TRAFFIC = r"""
extern "C" __global__ void vectors(const float* x, float* out) {
  const uint4 v = reinterpret_cast<const uint4*>(x)[threadIdx.x];
  reinterpret_cast<uint4*>(out)[threadIdx.x] = v;
}
extern "C" __global__ void chunks(const float* x, float* out) {
  for (int i = 0; i < 8; ++i) out[threadIdx.x + 128 * i] = x[threadIdx.x * 8 + i];
}
extern "C" __global__ void banks(const float* x, float* out) {
  __shared__ float s[32 * 32];
  for (int i = threadIdx.x; i < 1024; i += 32) s[i] = x[i];
  __syncthreads();
  float sum = 0;
  for (int i = 0; i < 32; ++i) sum += s[threadIdx.x * 32 + i];
  out[threadIdx.x] = sum;
}
"""


def test_traffic_is_counted():
    memory = np.zeros(2 * 4096 + 256, np.uint8)
    begin = -memory.ctypes.data % 256
    x, out = (memory[begin + at : begin + at + 4096].view(np.float32) for at in (0, 4096))
    module = Module(TRAFFIC)
    half = module.launch("vectors", 1, 128, 0, [x[:512], out[:512]])
    assert half.requested == {"global read": 2048, "global write": 2048}
    assert half.sectors == half.wide == half.requested
    assert half.buffers == [(2048, 0), (0, 2048)]
    chunks = module.launch("chunks", 1, 128, 0, [x, out])
    assert chunks.requested["global read"] == 4096
    assert chunks.sectors["global read"] == 8 * 4096  # every lane its own sector, eight times over
    assert chunks.wide["global read"] == 0
    assert module.launch("banks", 1, 32, 0, [x, out]).bank_conflict > 10


def test_sixteen_bit_conversions_are_those_of_numpy():
    """All 65536 values one way, and a million the other, ties and subnormals among them."""
    source = (
        CONVERSIONS
        + r"""
extern "C" __global__ void convert(const unsigned short* bits, float* wide, const float* x, unsigned short* out) {
  const int i = blockIdx.x * 256 + threadIdx.x;
  if (i < 65536) wide[i] = mlefast::widen(mlefast::TYPE{bits[i]});
  out[i] = mlefast::narrow(x[i], mlefast::TYPE{}).bits;
}
"""
    )
    bits = np.arange(65536, dtype=np.uint16)
    r = np.random.default_rng(0)
    ties = (bits.astype(np.uint32) << 16 | 0x8000).view(np.float32)
    x = np.concatenate([ties, r.integers(0, 2**32, 196608, dtype=np.uint32).view(np.float32)])
    for name, dtype in (("Half", np.dtype(np.float16)), ("BFloat16", np.dtype(ml_dtypes.bfloat16))):
        wide, out = np.zeros(65536, np.float32), np.zeros(x.size, np.uint16)
        Module(source.replace("TYPE", name)).launch("convert", x.size // 256, 256, 0, [bits, wide, x, out])
        np.testing.assert_array_equal(wide, bits.view(dtype).astype(np.float32))
        with np.errstate(all="ignore"):
            want = x.astype(dtype)
        np.testing.assert_array_equal(out.view(dtype).astype(np.float32), want.astype(np.float32))
