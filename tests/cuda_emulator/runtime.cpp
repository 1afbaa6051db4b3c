#include "runtime.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

namespace emulator {

Machine machine;

namespace {

using Entry = void (*)(void**);
std::map<std::string, Entry>& kernels() {
  static std::map<std::string, Entry> all;
  return all;
}
Entry entry;
void** entry_arguments;
const char* const names[] = {"__shfl_sync", "__shfl_xor_sync", "__ballot_sync", "__syncwarp"};

// ---- fibers

#if defined(__x86_64__)
void* scheduler;
extern "C" void emulator_switch(void** save, void* to);
asm(R"(
.text
.globl emulator_switch
.hidden emulator_switch
.type emulator_switch, @function
emulator_switch:
  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
  ret
.size emulator_switch, .-emulator_switch
)");
void resume(Fiber* f) { emulator_switch(&scheduler, f->context); }
void suspend() { emulator_switch(&machine.current->context, scheduler); }
#else
ucontext_t scheduler;
void resume(Fiber* f) { swapcontext(&scheduler, &f->machine); }
void suspend() { swapcontext(&machine.current->machine, &scheduler); }
#endif

void complete_warp(int warp);

void fiber_body() {
  entry(entry_arguments);
  Fiber* f = machine.current;
  f->state = State::done;
  --machine.alive;
  complete_warp(f->warp);
  suspend();
  abort();
}

// All stacks in one mapping, of which a process may have but so many: there is one machine for each module.
void make_fibers() {
  if (!machine.fibers.empty()) return;
  void* memory = mmap(nullptr, most_threads * stack_size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) abort();
  for (size_t i = 0; i < most_threads; ++i) {
    Fiber* f = new Fiber{};
    f->stack = static_cast<char*>(memory) + i * stack_size;
    machine.fibers.push_back(f);
  }
}

void start(Fiber* f, int number) {
  f->number = number, f->warp = number / 32, f->lane = number % 32;
  f->index = {static_cast<unsigned>(number), 0, 0};
  f->mask = 0, f->state = State::ready;
  f->log.clear();
  memset(f->clock, 0, sizeof f->clock);
  f->clock[f->lane] = 1;
#if defined(__x86_64__)
  auto* top = reinterpret_cast<uintptr_t*>(f->stack + stack_size);
  *--top = 0;  // fiber_body is entered as if called: its stack is aligned but for a return address
  *--top = reinterpret_cast<uintptr_t>(fiber_body);
  for (int i = 0; i < 6; ++i) *--top = 0;
  f->context = top;
#else
  getcontext(&f->machine);
  f->machine.uc_stack.ss_sp = f->stack;
  f->machine.uc_stack.ss_size = stack_size;
  f->machine.uc_link = nullptr;
  makecontext(&f->machine, fiber_body, 0);
#endif
}

void make_ready(Fiber* f) {
  f->state = State::ready;
  machine.ready.push_back(f->number);
}

// ---- collectives of a warp

Fiber* fiber_at(int warp, int lane) {
  const unsigned number = static_cast<unsigned>(warp * 32 + lane);
  return number < machine.block ? machine.fibers[number] : nullptr;
}

bool waits_with(const Fiber* f, unsigned mask) { return f && f->state == State::in_warp && f->mask == mask; }

// Everybody in the mask has come, or has exited and will not.
bool is_complete(int warp, unsigned mask) {
  for (int lane = 0; lane < 32; ++lane) {
    const Fiber* f = mask >> lane & 1 ? fiber_at(warp, lane) : nullptr;
    if (f && f->state != State::done && !waits_with(f, mask)) return false;
  }
  return true;
}

void complete(int warp, unsigned mask) {
  Fiber* present[32] = {};
  uint64_t ballot = 0, result[32] = {};
  uint32_t joined[32] = {};
  for (int lane = 0; lane < 32; ++lane) {
    Fiber* f = mask >> lane & 1 ? fiber_at(warp, lane) : nullptr;
    if (!waits_with(f, mask)) continue;
    present[lane] = f;
    ballot |= (f->value & 1) << lane;
    for (int i = 0; i < 32; ++i) joined[i] = std::max(joined[i], f->clock[i]);
  }
  for (int lane = 0; lane < 32; ++lane) {
    Fiber* f = present[lane];
    if (!f) continue;
    result[lane] = ballot;
    if (f->kind == Collective::shuffle || f->kind == Collective::shuffle_xor) {
      const int from = f->kind == Collective::shuffle ? f->argument % 32 : (lane ^ f->argument) % 32;
      if (present[from]) {
        result[lane] = present[from]->value;
      } else {
        Fiber* before = machine.current;
        machine.current = f;
        report(false, 0, f->line, "%s reads lane %d, which is not in mask %08x or has exited", names[int(f->kind)],
               from, mask);
        machine.current = before;
        result[lane] = ~0ull;
      }
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    Fiber* f = present[lane];
    if (!f) continue;
    f->value = result[lane];
    if (f->kind == Collective::sync) {
      memcpy(f->clock, joined, sizeof joined);
      ++f->clock[lane];
    }
    f->mask = 0;
    make_ready(f);
  }
}

// After an exit: those who wait may wait for nobody any more.
void complete_warp(int warp) {
  for (int lane = 0; lane < 32; ++lane) {
    const Fiber* f = fiber_at(warp, lane);
    if (f && f->state == State::in_warp && is_complete(warp, f->mask)) complete(warp, f->mask);
  }
}

// ---- the block's barrier

// All that are alive wait at it: lets them pass. False if somebody waits elsewhere.
bool pass_barrier() {
  const Fiber* first = nullptr;
  int waiting = 0;
  for (unsigned i = 0; i < machine.block; ++i) {
    const Fiber* f = machine.fibers[i];
    if (f->state != State::at_barrier) continue;
    ++waiting;
    if (!first) first = f;
    if (f->line != first->line) {
      report(false, 0, f->line, "divergent __syncthreads: thread %d waits at line %d, thread %d at line %d",
             first->number, first->line, f->number, f->line);
      machine.aborted = true;
      return false;
    }
  }
  if (!waiting || waiting != machine.alive) return false;
  if (waiting != static_cast<int>(machine.block))
    report(false, 0, first->line, "__syncthreads is reached by %d of %u threads: the others have exited", waiting,
           machine.block);
  ++machine.epoch;
  for (unsigned i = 0; i < machine.block; ++i)
    if (machine.fibers[i]->state == State::at_barrier) make_ready(machine.fibers[i]);
  if (machine.order == 0) std::reverse(machine.ready.begin(), machine.ready.end());
  return true;
}

void report_deadlock() {
  std::map<std::string, int> where;
  for (unsigned i = 0; i < machine.block; ++i) {
    const Fiber* f = machine.fibers[i];
    if (f->state == State::done) continue;
    char text[120];
    if (f->state == State::at_barrier)
      snprintf(text, sizeof text, "__syncthreads in line %d", f->line);
    else
      snprintf(text, sizeof text, "%s with mask %08x in line %d", names[int(f->kind)], f->mask, f->line);
    ++where[text];
  }
  std::string all;
  for (const auto& [text, count] : where) all += "; " + std::to_string(count) + " at " + text;
  report(false, 0, 0, "deadlock: %d threads have exited%s", static_cast<int>(machine.block) - machine.alive,
         all.c_str());
  machine.aborted = true;
}

void run_block() {
  Machine& m = machine;
  m.aborted = false, m.epoch = 1, m.alive = static_cast<int>(m.block);
  m.ready.clear();
  enter_block();
  for (unsigned i = 0; i < m.block; ++i) start(m.fibers[i], static_cast<int>(i));
  for (int i = static_cast<int>(m.block) - 1; i >= 0; --i) m.ready.push_back(i);  // the last one is taken first
  if (m.order == 1) std::reverse(m.ready.begin(), m.ready.end());
  while (m.alive && !m.aborted) {
    if (m.ready.empty()) {
      m.current = nullptr;
      if (!pass_barrier() && !m.aborted) report_deadlock();
      continue;
    }
    if (m.order == 2) std::swap(m.ready[m.random() % m.ready.size()], m.ready.back());
    m.current = m.fibers[static_cast<size_t>(m.ready.back())];
    m.ready.pop_back();
    resume(m.current);
  }
  m.current = nullptr;
  leave_block();
}

// A number in [-1, 1] that depends on the bits alone.
double noise(uint64_t bits) {
  bits *= 0x9e3779b97f4a7c15ull;
  bits ^= bits >> 32;
  bits *= 0xd6e8feb86659fd93ull;
  return static_cast<double>(bits >> 11) / static_cast<double>(1ull << 52) - 1;
}

template <class T, class Bits> T move_by_ulps(T exact, T x) {
  if (machine.ulps == 0 || !std::isfinite(exact) || exact == 0 || x == 0) return exact;
  Bits bits, from;
  memcpy(&bits, &exact, sizeof bits);
  memcpy(&from, &x, sizeof from);
  bits = static_cast<Bits>(bits + std::lround(machine.ulps * noise(from)));
  T moved;
  memcpy(&moved, &bits, sizeof moved);
  return std::isfinite(moved) ? moved : exact;
}

}  // namespace

void report(bool fatal, uintptr_t code, int line, const char* format, ...) {
  char text[400];
  va_list list;
  va_start(list, format);
  vsnprintf(text, sizeof text, format, list);
  va_end(list);
  if (machine.error_count++ < 20) {
    char place[160];
    snprintf(place, sizeof place, "block %u thread %d code=%zx line=%d: ", machine.block_index.x,
             machine.current ? machine.current->number : -1, static_cast<size_t>(code), line);
    machine.errors += std::string(place) + text + "\n";
  }
  if (!fatal) return;
  machine.aborted = true;
  if (machine.current) suspend();
}

void yield_ready() {
  make_ready(machine.current);
  suspend();
}

// ---- what device.h declares

uint3 thread_index() { return machine.current->index; }
uint3 block_index() { return machine.block_index; }
void add_kernel(const char* name, Entry kernel) { kernels()[name] = kernel; }
float disturb(float exact, float x) { return move_by_ulps<float, uint32_t>(exact, x); }
double disturb(double exact, double x) { return move_by_ulps<double, uint64_t>(exact, x); }

uint64_t warp_collective(Collective kind, unsigned mask, uint64_t value, unsigned argument, int line) {
  Fiber* f = machine.current;
  const char* name = names[int(kind)];
  if (!(mask >> f->lane & 1)) report(true, 0, line, "%s: lane %d is not in its own mask %08x", name, f->lane, mask);
  for (int lane = 0; lane < 32; ++lane) {
    const Fiber* o = fiber_at(f->warp, lane);
    if (!o || o == f || o->state != State::in_warp) continue;
    const bool concerns = o->mask >> f->lane & 1 || mask >> lane & 1;
    if (concerns && (o->mask != mask || o->kind != kind || o->line != line))
      report(true, 0, line,
             "a warp's collectives disagree: lane %d is at %s, mask %08x, line %d, lane %d at %s, mask "
             "%08x, line %d",
             f->lane, name, mask, line, lane, names[int(o->kind)], o->mask, o->line);
  }
  f->kind = kind, f->mask = mask, f->value = value, f->argument = argument, f->line = line;
  f->state = State::in_warp;
  if (is_complete(f->warp, mask)) complete(f->warp, mask);
  suspend();
  return f->value;
}

void block_barrier(int line) {
  machine.current->line = line;
  machine.current->state = State::at_barrier;
  suspend();
}

}  // namespace emulator

// ---- what the driver calls

using namespace emulator;

extern "C" {

struct Configuration {
  uint32_t grid, block, dynamic_shared, order, preempt, block_count;
  float ulps;
  uint64_t seed, budget;
  const uint32_t* blocks;  // those to run, or null for all
};

const char* emulator_errors() { return machine.errors.c_str(); }

// The number of errors, or -1 if there is no such kernel.
int emulator_launch(const char* name, void** arguments, const Configuration* c) {
  Machine& m = machine;
  m.errors.clear(), m.error_count = 0;
  const auto found = kernels().find(name);
  if (found == kernels().end()) return -1;
  entry = found->second, entry_arguments = arguments;
  m.grid = c->grid, m.block = c->block, m.order = static_cast<int>(c->order), m.preempt = static_cast<int>(c->preempt);
  m.ulps = c->ulps, m.budget = c->budget;
  m.random.seed(c->seed);
  m.current = nullptr;
  if (m.grid < 1 || m.grid > 0x7fffffffu || m.block < 1 || m.block > most_threads) {
    report(false, 0, 0, "launch: a grid of %u blocks of %u threads", m.grid, m.block);
    return m.error_count;
  }
  make_fibers();
  prepare_memory(c->dynamic_shared);
  if (const char* problem = shared_memory_problem()) {
    report(false, 0, 0, "launch: %s", problem);
    return m.error_count;
  }
  std::vector<uint32_t> order(c->blocks ? c->block_count : m.grid);
  for (size_t i = 0; i < order.size(); ++i) order[i] = c->blocks ? c->blocks[i] : static_cast<uint32_t>(i);
  if (m.order == 1) std::reverse(order.begin(), order.end());
  if (m.order == 2) std::shuffle(order.begin(), order.end(), m.random);
  for (const uint32_t b : order) {
    m.block_index = {b, 0, 0};
    run_block();
    if (m.aborted) break;
  }
  return m.error_count;
}
}
