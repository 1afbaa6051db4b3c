// Every access to global and shared memory: bounds, alignment, races, reads of what was never written, and traffic.
#include <link.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>
#include <unordered_map>

#include "runtime.hpp"

extern "C" void* emulator_dynamic_shared() __attribute__((weak));
extern "C" void emulator_touch_shared() __attribute__((weak));

namespace emulator {
namespace {

// Who touched a cell last, since the last barrier: lanes of one warp, or several warps.
struct Access {
  uint32_t block, lanes, clock, epoch;
  int warp;
};
constexpr int several_warps = -1;

struct Cell {
  Access write, read;
};

constexpr size_t cell_size = 2;  // bytes; the smallest access of any kernel here

struct Buffer {
  uintptr_t begin, end;
  bool writable;
  std::string name;
  std::vector<Cell> cells;          // of writable ones
  std::vector<bool> read, written;  // sectors of 32 bytes
};

struct Range {
  uintptr_t begin, end;
  bool holds(uintptr_t a) const { return a >= begin && a < end; }
  bool holds(uintptr_t a, size_t n) const { return a >= begin && a + n <= end; }
};

std::vector<Buffer> buffers;
// A shared array of the module: its place in the thread-local segment, and its first byte's number among the cells.
struct SharedArray {
  Range range;
  size_t first;
};
std::vector<SharedArray> arrays;
size_t fixed_bytes;  // of all of them, after which the dynamic one is numbered
Range module, fixed, dynamic;
std::vector<Cell> shared_cells;

struct Traffic {
  uint64_t instructions, bytes, sectors, wavefronts, ideal_wavefronts;
  uint32_t size;
  bool write, shared;
};
std::map<uintptr_t, Traffic> traffic;  // by place in the code

int find_module(dl_phdr_info* info, size_t, void*) {
  Range image{~uintptr_t(0), 0};
  bool mine = false;
  const auto self = reinterpret_cast<uintptr_t>(&find_module);
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& h = info->dlpi_phdr[i];
    if (h.p_type != PT_LOAD) continue;
    const Range part{info->dlpi_addr + h.p_vaddr, info->dlpi_addr + h.p_vaddr + h.p_memsz};
    image = {std::min(image.begin, part.begin), std::max(image.end, part.end)};
    mine |= part.holds(self);
  }
  if (!mine) return 0;
  module = image, fixed = {0, 0};
  for (int i = 0; i < info->dlpi_phnum; ++i)
    if (info->dlpi_phdr[i].p_type == PT_TLS) {
      const auto base = reinterpret_cast<uintptr_t>(info->dlpi_tls_data);
      fixed = {base, base + info->dlpi_phdr[i].p_memsz};
    }
  return 1;
}

// Whether what the current fiber does comes after an earlier access, by a barrier, by __syncwarp or in its own order.
bool is_after(const Access& earlier) {
  const Fiber* f = machine.current;
  if (!earlier.lanes) return true;
  if (earlier.block != machine.block_index.x) return false;
  if (earlier.epoch != machine.epoch) return true;
  if (earlier.warp != f->warp) return false;
  for (int lane = 0; lane < 32; ++lane)
    if (earlier.lanes >> lane & 1 && lane != f->lane && f->clock[lane] < earlier.clock) return false;
  return true;
}

void note(Access& access, bool join) {
  const Fiber* f = machine.current;
  const uint32_t lane = 1u << f->lane, clock = f->clock[f->lane];
  if (join && access.lanes && access.block == machine.block_index.x && access.epoch == machine.epoch) {
    if (access.warp != f->warp) access.warp = several_warps;
    access.lanes |= lane;
    access.clock = std::max(access.clock, clock);
  } else {
    access = {machine.block_index.x, lane, clock, machine.epoch, f->warp};
  }
}

// True if all is well.
bool touch(Cell& cell, bool write, uintptr_t code, const char* where, size_t at) {
  const char* what = write ? "write" : "read";
  if (!is_after(cell.write)) {
    report(false, code, 0, "race on %s[+%zu]: this %s, a write by block %u warp %d, and no barrier between", where, at,
           what, cell.write.block, cell.write.warp);
    return false;
  }
  if (write && !is_after(cell.read)) {
    report(false, code, 0, "race on %s[+%zu]: this write, a read by block %u warp %d, and no barrier between", where,
           at, cell.read.block, cell.read.warp);
    return false;
  }
  note(write ? cell.write : cell.read, !write);
  return true;
}

void access_shared(uintptr_t code, uintptr_t a, size_t n, bool write, size_t offset) {
  for (size_t c = offset / cell_size; c <= (offset + n - 1) / cell_size; ++c) {
    Cell& cell = shared_cells[c];
    if (!write && !cell.write.lanes) {
      report(false, code, 0, "read of shared memory that was never written, at +%zu", c * cell_size);
      cell.write = {machine.block_index.x, 1, 0, 0, 0};  // once is enough
      return;
    }
    if (!touch(cell, write, code, "shared memory", c * cell_size)) return;
  }
  machine.current->log.push_back({code, a, static_cast<uint32_t>(n), write, true});
}

void access_global(uintptr_t code, Buffer& b, uintptr_t a, size_t n, bool write) {
  auto& sectors = write ? b.written : b.read;
  for (size_t s = a / 32 - b.begin / 32; s <= (a + n - 1) / 32 - b.begin / 32; ++s) sectors[s] = true;
  machine.current->log.push_back({code, a, static_cast<uint32_t>(n), write, false});
  if (!b.writable) return;
  const size_t offset = a - b.begin;
  for (size_t c = offset / cell_size; c <= (offset + n - 1) / cell_size; ++c)
    if (!touch(b.cells[c], write, code, b.name.c_str(), c * cell_size)) return;
}

void access(uintptr_t code, uintptr_t a, size_t n, bool write) {
  Fiber* f = machine.current;
  if (!f || a - reinterpret_cast<uintptr_t>(f->stack) < stack_size) return;  // registers and local memory
  const char* what = write ? "write" : "read";
  if (machine.budget && !--machine.budget) report(true, code, 0, "the budget of accesses is spent: an endless loop?");
  if (machine.preempt && machine.random() % 1024 < static_cast<unsigned>(machine.preempt)) yield_ready();
  const bool misaligned = (n & (n - 1)) == 0 && a % n;

  if (dynamic.holds(a) || fixed.holds(a)) {
    const bool in_dynamic = dynamic.holds(a);
    const size_t at = in_dynamic ? a - dynamic.begin : a - fixed.begin;
    bool inside = in_dynamic && dynamic.holds(a, n);
    size_t number = fixed_bytes + at;
    for (const SharedArray& array : arrays)
      if (!in_dynamic && array.range.holds(at, n)) inside = true, number = array.first + (at - array.range.begin);
    if (!inside) report(true, code, 0, "%s of %zu bytes out of bounds of shared memory, at +%zu", what, n, at);
    if (misaligned) report(true, code, 0, "misaligned %s of %zu bytes of shared memory", what, n);
    access_shared(code, a, n, write, number);
    return;
  }
  for (Buffer& b : buffers) {
    if (a < b.begin || a >= b.end) continue;
    if (a + n > b.end)
      report(true, code, 0, "%s of %zu bytes out of bounds: %zu past the end of %s", what, n, a + n - b.end,
             b.name.c_str());
    if (write && !b.writable) report(true, code, 0, "write to %s, which is read-only", b.name.c_str());
    if (misaligned)
      report(true, code, 0, "misaligned %s of %zu bytes at %s[+%zu]", what, n, b.name.c_str(), a - b.begin);
    access_global(code, b, a, n, write);
    return;
  }
  if (module.holds(a)) return;  // the module's constants
  report(true, code, 0, "%s of %zu bytes out of bounds: in no buffer", what, n);
}

// The accesses of one warp at one place in the code are one instruction each time: sectors for global memory, passes
// over the 32 banks for shared memory.
void count_instruction(const Logged* const (&lanes)[32]) {
  uintptr_t units[32 * 5];
  int n = 0;
  const Logged* any = nullptr;
  uint64_t bytes = 0;
  for (const Logged* l : lanes) {
    if (!l) continue;
    any = l;
    bytes += l->size;
    const int shift = l->shared ? 2 : 5;
    for (uintptr_t u = l->address >> shift; u <= (l->address + l->size - 1) >> shift; ++u) units[n++] = u;
  }
  std::sort(units, units + n);
  n = static_cast<int>(std::unique(units, units + n) - units);
  Traffic& t = traffic[any->code];
  t.size = any->size, t.write = any->write, t.shared = any->shared;
  ++t.instructions;
  t.bytes += bytes;
  if (!any->shared) {
    t.sectors += static_cast<uint64_t>(n);
    return;
  }
  int per_bank[32] = {}, most = 0;
  for (int i = 0; i < n; ++i) most = std::max(most, ++per_bank[units[i] % 32]);
  t.wavefronts += static_cast<uint64_t>(most);
  t.ideal_wavefronts += static_cast<uint64_t>((n + 31) / 32);
}

}  // namespace

void prepare_memory(size_t dynamic_size) {
  if (emulator_touch_shared) emulator_touch_shared();  // makes the thread-local segment exist
  dl_iterate_phdr(find_module, nullptr);
  dynamic = {0, 0};
  if (emulator_dynamic_shared) {
    dynamic.begin = reinterpret_cast<uintptr_t>(emulator_dynamic_shared());
    dynamic.end = dynamic.begin + dynamic_size;
  }
}

const char* shared_memory_problem() {
  static char text[100];
  const size_t all = fixed_bytes + (dynamic.end - dynamic.begin);
  if (all <= 227 * 1024) return nullptr;
  snprintf(text, sizeof text, "%zu bytes of shared memory, more than any device has", all);
  return text;
}

void enter_block() {
  shared_cells.assign((fixed_bytes + (dynamic.end - dynamic.begin)) / cell_size + 1, Cell{});
  for (const SharedArray& array : arrays)  // NaN, so that what is read too early shows in the result as well
    memset(reinterpret_cast<void*>(fixed.begin + array.range.begin), 0xff, array.range.end - array.range.begin);
  if (dynamic.begin) memset(reinterpret_cast<void*>(dynamic.begin), 0xff, dynamic.end - dynamic.begin);
}

void leave_block() {
  const int warps = (static_cast<int>(machine.block) + 31) / 32;
  for (int w = 0; w < warps; ++w) {
    std::unordered_map<uintptr_t, std::vector<const Logged*>> table;  // place -> its repetitions x 32 lanes
    for (int lane = 0; lane < 32 && w * 32 + lane < static_cast<int>(machine.block); ++lane) {
      std::unordered_map<uintptr_t, size_t> seen;
      for (const Logged& l : machine.fibers[static_cast<size_t>(w * 32 + lane)]->log) {
        const size_t repetition = seen[l.code]++;
        auto& rows = table[l.code];
        if (rows.size() < (repetition + 1) * 32) rows.resize((repetition + 1) * 32, nullptr);
        rows[repetition * 32 + static_cast<size_t>(lane)] = &l;
      }
    }
    for (auto& [code, rows] : table)
      for (size_t i = 0; i < rows.size(); i += 32)
        count_instruction(reinterpret_cast<const Logged* const(&)[32]>(rows[i]));
  }
}

}  // namespace emulator

// ---- what the driver calls

using namespace emulator;

extern "C" {

void emulator_clear() {
  buffers.clear(), arrays.clear(), traffic.clear();
  fixed_bytes = 0;
}

void emulator_add_buffer(uintptr_t begin, size_t size, int writable, const char* name) {
  Buffer b{begin, begin + size, writable != 0, name, {}, {}, {}};
  if (writable) b.cells.resize(size / cell_size + 1);
  b.read.resize((begin + size) / 32 - begin / 32 + 1);
  b.written.resize(b.read.size());
  buffers.push_back(std::move(b));
}

void emulator_add_shared_array(size_t offset, size_t size) {
  arrays.push_back({{offset, offset + size}, fixed_bytes});
  fixed_bytes += (size + 15) / 16 * 16;
}

uintptr_t emulator_module_base() { return module.begin; }

// Bytes of the different sectors of the i-th buffer that were read and written.
void emulator_footprint(int i, uint64_t* read, uint64_t* written) {
  const Buffer& b = buffers[static_cast<size_t>(i)];
  *read = 32 * static_cast<uint64_t>(std::count(b.read.begin(), b.read.end(), true));
  *written = 32 * static_cast<uint64_t>(std::count(b.written.begin(), b.written.end(), true));
}

// Rows of: place in the code, size, write, shared, instructions, bytes, sectors, wavefronts, ideal wavefronts.
int emulator_traffic(uint64_t* out, int most) {
  int n = 0;
  for (const auto& [code, t] : traffic) {
    if (n == most) break;
    const uint64_t row[9] = {code,    t.size,    t.write,      t.shared,          t.instructions,
                             t.bytes, t.sectors, t.wavefronts, t.ideal_wavefronts};
    std::copy(row, row + 9, out + 9 * n++);
  }
  return n;
}

// ---- what -fsanitize=thread calls

#define HERE reinterpret_cast<uintptr_t>(__builtin_return_address(0))
#define AT reinterpret_cast<uintptr_t>(p)
void __tsan_read1(void* p) { access(HERE, AT, 1, false); }
void __tsan_read2(void* p) { access(HERE, AT, 2, false); }
void __tsan_read4(void* p) { access(HERE, AT, 4, false); }
void __tsan_read8(void* p) { access(HERE, AT, 8, false); }
void __tsan_read16(void* p) { access(HERE, AT, 16, false); }
void __tsan_write1(void* p) { access(HERE, AT, 1, true); }
void __tsan_write2(void* p) { access(HERE, AT, 2, true); }
void __tsan_write4(void* p) { access(HERE, AT, 4, true); }
void __tsan_write8(void* p) { access(HERE, AT, 8, true); }
void __tsan_write16(void* p) { access(HERE, AT, 16, true); }
void __tsan_unaligned_read2(void* p) { access(HERE, AT, 2, false); }
void __tsan_unaligned_read4(void* p) { access(HERE, AT, 4, false); }
void __tsan_unaligned_read8(void* p) { access(HERE, AT, 8, false); }
void __tsan_unaligned_read16(void* p) { access(HERE, AT, 16, false); }
void __tsan_unaligned_write2(void* p) { access(HERE, AT, 2, true); }
void __tsan_unaligned_write4(void* p) { access(HERE, AT, 4, true); }
void __tsan_unaligned_write8(void* p) { access(HERE, AT, 8, true); }
void __tsan_unaligned_write16(void* p) { access(HERE, AT, 16, true); }
void __tsan_read_range(void* p, size_t n) { access(HERE, AT, n, false); }
void __tsan_write_range(void* p, size_t n) { access(HERE, AT, n, true); }
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
}
