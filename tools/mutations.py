"""Breaks the code on purpose, a line at a time, and shows that the tests fail.

    python tools/mutations.py             # all of them: about a minute for each that is compiled
    python tools/mutations.py mask merge  # those whose names contain one of the words

Works on a clone of the last commit, in a virtual environment of its own; this checkout is not touched. Exits with 1 if
a mutation passes the tests, or if its text is no longer found in the source.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
TESTS = ["tests/test_losses.py", "tests/test_softmax.py", "tests/test_threads.py", "tests/test_kernels.py"]
HALVES = ["tests/test_halves.py"]
FAMILY = ["tests/test_loss_family.py"]
ESTIMATORS = ["tests/estimators", "-k", "not test_scikit_learn"]


class Mutation(NamedTuple):
    name: str
    file: str
    old: str
    new: str
    tests: list[str] = TESTS


STATE, LOSSES = "src/rules/state.h", "src/rules/losses.h"
ROWS, RUN, PIVOT = "src/cpp/row_kernel.hpp", "src/cpp/run.hpp", "src/cpp/pivot.hpp"
ROWS_TESTS = ["tests/test_rows.py", "tests/test_kernels.py"]
STRIPS, TILE = "src/cpp/strip_kernel.hpp", "src/cpp/tile.hpp"
COLUMNS, STREAMED = "src/cpp/column_kernel.hpp", "src/cpp/streamed_columns.hpp"
COLUMNS_TESTS = ["tests/test_streamed_columns.py"]
AVX2, STORAGE = "src/cpp/isa/avx2.hpp", "src/cpp/storage.hpp"
MATH, VECTORS = "src/cpp/math.hpp", "src/cpp/vectors.hpp"
DRIVER, MODULE, NUMPY = "src/cpp/driver.cpp", "src/cpp/module.cpp", "python/mlefast/_backends/numpy.py"
SOLVERS = "python/mlefast/estimators/solvers.py"
LINEAR_MODEL, LINEAR_KERNEL = "src/cpp/linear_model.cpp", "src/cpp/linear_kernel.hpp"
LINEAR = ["tests/test_linear_kernels.py"]
TRAINING, TRAINING_MATH = "src/rules/training.h", "src/cpp/training_math.hpp"
TRAINING_DRIVER, TRAINING_KERNEL = "src/cpp/training.cpp", "src/cpp/training_kernel.hpp"

TERMS, TERM_LOSSES, TERM_KERNEL = "src/rules/terms.h", "src/rules/term_losses.h", "src/cpp/term_kernel.hpp"

MUTATIONS = [
    Mutation(
        "row scan: the winners of four vectors are looked for where there is none",
        ROWS,
        "const bool won = raised && Ops::any(",
        "const bool won = raised && !Ops::any(",
    ),
    Mutation(
        "row scan: one of four vectors has no say in the maximum",
        ROWS,
        "Ops::max(Ops::max(v[0], v[1]), Ops::max(v[2], v[3]))",
        "Ops::max(Ops::max(v[0], v[1]), Ops::max(v[2], v[2]))",
    ),
    Mutation(
        "strips: a row's tail counts what its steps have counted", STRIPS, "if (overlaps) lost", "if (false) lost"
    ),
    Mutation(
        "strips: a tail's first exponentials do not wait",
        STRIPS,
        "overlaps && !lines ? overlapping + row[q] * lanes : staged(row[q]) + c",
        "staged(row[q]) + c",
    ),
    Mutation(
        "strips: winners are not counted",
        STRIPS,
        "winners[w] = winners[w] - Ops::counted(v);",
        "(void)v, winners[w] = Ops::set(1);",
    ),
    Mutation("strips: another row's pivot", STRIPS, "at[q] = against[row[q]]", "at[q] = against[r]"),
    Mutation(
        "strips: the maximum without the tail",
        STRIPS,
        "Vec best = Ops::load(row + classes - lanes);",
        "Vec best = Ops::load(row);",
    ),
    Mutation(
        "strips: streamed rows lack their targets' entries",
        STRIPS,
        "put(r, to);",
        "if (!lines) put(r, to);",
        ROWS_TESTS,
    ),
    Mutation(
        "strips: streamed rows lack what comes before their first whole vector",
        STRIPS,
        "if (c > 0) put(0);",
        "",
        ROWS_TESTS,
    ),
    Mutation(
        "strips: streamed rows lack what comes behind their last whole vector",
        STRIPS,
        "if (c < classes) put(classes - lanes);",
        "",
        ROWS_TESTS,
    ),
    Mutation(
        "strips: what a streamed row has of the next one's line is lost",
        VECTORS,
        "if (size > 0) std::memcpy(half[turn], leave(), static_cast<size_t>(start));",
        "if (size > 0) leave();",
        ROWS_TESTS,
    ),
    Mutation(
        "rows: what a streamed row has of the next one's line is lost at the end",
        ROWS,
        "if constexpr (writes) writer.flush();",
        "",
        ROWS_TESTS,
    ),
    Mutation(
        "rows: any row is taken to follow the one whose line waits",
        ROWS,
        "(within == waiting && to == line_at + waiting)",
        "within == waiting",
        ROWS_TESTS,
    ),
    Mutation(
        "columns: what a tile has of the next one's line is lost",
        STREAMED,
        "for (int64_t i = 0; i < line; i += lanes) Ops::store(all_rows + i, Ops::load(all_rows + rows + i));",
        "",
        COLUMNS_TESTS,
    ),
    Mutation(
        "columns: what waits at the end is not written",
        COLUMNS,
        "if (run.ends && (end > r || !run.begins)) streamed.finish(run.out + end, run.out_class);",
        "",
        COLUMNS_TESTS,
    ),
    Mutation(
        "columns: what waits before a run without a tile is not written",
        COLUMNS,
        "(end > r || !run.begins)",
        "end > r",
        COLUMNS_TESTS,
    ),
    Mutation(
        "columns: rows that wait are wanted though they are ignored",
        STREAMED,
        "wants_all = tile.wants_all() ? T(1) : T(0);",
        "wants_all = T(1);",
        COLUMNS_TESTS,
    ),
    Mutation(
        "columns: the last pass takes all classes for alike",
        STREAMED,
        "if (before != known) known = before, finish = Finisher(numbers + line - before, stride, all);",
        "",
        COLUMNS_TESTS,
    ),
    Mutation(
        "out: memory of another input is written to while that is read",
        NUMPY,
        " and is_apart(out, *others)",
        "",
        ["tests/test_out_memory.py"],
    ),
    Mutation(
        "near pivots: one group's sum is not divided by exp(maximum - pivot)",
        PIVOT,
        "return is_near ? terms / top[w] : terms",
        "return false ? terms / top[w] : terms",
    ),
    Mutation(
        "strips: ignored rows keep their NaN",
        STRIPS,
        "if (last[0].wants_all() || wanted[r] != 0) {",
        "if (true) {",
    ),
    Mutation(
        "strip: the terms of all of a row's steps in one sum",
        STRIPS,
        "int64_t group = 8 * step;",
        "int64_t group = 64 * step;",
    ),
    Mutation(
        "columns: the terms of 16 classes in one sum",
        COLUMNS,
        "group = 8, one_group = 10",
        "group = 16, one_group = 16",
    ),
    Mutation("exp: one of four powers from the table is 8 ULP off", MATH, "0xfff744fd}", "0xfff74505}"),
    Mutation("exp: what is far off stays above 0", MATH, "float lowest = -159 * ln2", "float lowest = -150 * ln2"),
    Mutation(
        "linear models: a part is not added",
        LINEAR_MODEL,
        "for (int64_t part = 1; part < parts; ++part)\n          for",
        "for (int64_t part = 2; part < parts; ++part)\n          for",
        LINEAR,
    ),
    Mutation(
        "linear models: the loss without weights",
        LINEAR_MODEL,
        "sum += double(value[s]) * (model.weight ? double(model.weight[first + s]) : 1.0);",
        "sum += double(value[s]);",
        LINEAR,
    ),
    Mutation(
        "linear models: targets of the first block",
        LINEAR_MODEL,
        "call.target = target + first",
        "call.target = target",
        LINEAR,
    ),
    Mutation("linear models: the last features", LINEAR_KERNEL, "if (i < n) add(", "if (false) add(", LINEAR),
    Mutation(
        "linear models: the last block's gradient alone",
        LINEAR_KERNEL,
        "read<Isa, whole>(at, n) + sum[q][v], n);",
        "sum[q][v], n);",
        LINEAR,
    ),
    Mutation(
        "family: a winner's gradient cancels",
        TERMS,
        "Ops::select(at.wins, (m - a) - m * beside, m * at.p - a)",
        "m * at.p - a",
        FAMILY,
    ),
    Mutation("family: 0 times infinity", TERMS, "Ops::keep(Ops::unlike(a, Ops::set(0)), a * b)", "a * b", FAMILY),
    Mutation(
        "family: z_loss has no gradient",
        TERM_LOSSES,
        "row.sum[0] + times<Ops>(z, lse + lse);\n    row.factor[1] = row.beside();\n  }",
        "row.sum[0];\n    row.factor[1] = row.beside();\n  }",
        FAMILY,
    ),
    Mutation(
        "family: the cap has no second derivative",
        TERMS,
        "zero - two * signed_tanh * slope / s}",
        "zero}",
        FAMILY,
    ),
    Mutation(
        "family: the mean of a product is not corrected",
        TERM_LOSSES,
        "(at.slope * at.v - row.factor[2]) - row.later[0]",
        "at.slope * at.v - row.factor[2]",
        FAMILY,
    ),
    Mutation(
        "family: KL loses the winner's digits",
        TERM_LOSSES,
        "if (Ops::any(far))",
        "if (false)",
        FAMILY,
    ),
    Mutation(
        "family: elements beyond the row count",
        TERM_KERNEL,
        "part_sum[s] + (all ? term[s] : Ops::keep(within(i), term[s]))",
        "part_sum[s] + term[s]",
        FAMILY,
    ),
    Mutation(
        "family: ignored rows have a gradient",
        TERM_KERNEL,
        "Ops::keep(wanted, out[n])",
        "out[n]",
        FAMILY,
    ),
    Mutation(
        "family: the upstream factor is dropped",
        TERM_KERNEL,
        "run.scale[k] * (run.upstream[k] ? double(run.upstream[k][r]) : 1.0)",
        "run.scale[k]",
        FAMILY,
    ),
    Mutation(
        "merge: (-inf) + (-inf) is NaN",
        STATE,
        "Ops::select(Ops::equal(from, to), Ops::set(1), Ops::exp(from - to))",
        "Ops::exp(from - to)",
    ),
    Mutation("merge: the loser's maximum is forgotten", STATE, " + Ops::min(to_a, to_b)}", "}"),
    Mutation("merge: without rescaling", STATE, "a.others * to_a + b.others * to_b", "a.others + b.others"),
    Mutation("row without a distribution is not NaN", STATE, "return max - max;", "return Ops::set(0);"),
    Mutation(
        "logsumexp: log(total) in place of log1p(others)",
        LOSSES,
        "Ops::add_log1p(row.max - x_target, row.others)",
        "Ops::add_log1p(row.max - x_target, row.total() - Ops::set(1))",
    ),
    Mutation(
        "loss: lse - x_y from a rounded lse",
        LOSSES,
        "Ops::add_log1p(row.max - x_target, row.others)",
        "Ops::add_log1p(row.max, row.others) - x_target",
    ),
    Mutation(
        "gradient: p_y - 1 at a winning target",
        LOSSES,
        "Ops::select(wins, Ops::set(0) - row.others, Ops::exp(behind) - row.total())",
        "(Ops::exp(behind) - row.total())",
    ),
    Mutation(
        "gradient: off-target entries are 0",
        ROWS,
        "Task::factor(row, target.scale);",
        "Task::has_target ? 0 : Task::factor(row, target.scale);",
    ),
    Mutation(
        "gradient: off-target entries of short rows are 0",
        TILE,
        "const Vec factor = Task::factor(state[w], scale[w]);",
        "const Vec factor = Task::has_target ? Ops::set(0) : Task::factor(state[w], scale[w]);",
    ),
    Mutation(
        "gradient: the target's entry is not written",
        ROWS,
        "all[till_target] = at_target;",
        "",
    ),
    Mutation("gradient: the upstream factor is dropped", RUN, "target.scale *= double(run.upstream[row]);", ""),
    Mutation("gradient: the class weight is dropped", RUN, "target.scale *= double(target.weight);", ""),
    Mutation("loss: the class weight is dropped in long rows", ROWS, "loss * Ops::load(weight);", "loss;"),
    Mutation(
        "mask: the guard against -inf - (-inf) in long rows",
        PIVOT,
        "Ops::set(max == -infinity ? 0 : max)",
        "Ops::set(near ? 0 : max)",
    ),
    Mutation(
        "mask: the guard against -inf - (-inf) in short rows",
        PIVOT,
        "Ops::keep(Ops::equal(rows[w].max - rows[w].max, zero), rows[w].max)",
        "rows[w].max",
    ),
    Mutation(
        "short rows: one that is far from 0 is near for the others' sake",
        PIVOT,
        "near = !Ops::any(Ops::not_less(Ops::max(zero - max[w], max[w]), limit));",
        "near = true;",
        ROWS_TESTS,
    ),
    Mutation(
        "short rows: the winner's exponential is taken for 1 in the factor",
        TILE,
        "if (pivots.near) return Factor",
        "if (false) return Factor",
    ),
    Mutation(
        "short rows: the winner's exponential is taken for 1 in the sum",
        PIVOT,
        "return terms.lanes_over(top[w]);",
        "return terms.lanes(Constants::unscale);",
    ),
    Mutation("short rows: one class has no probability of 1", TILE, "is_softmax && may_be_near>", "false>", ROWS_TESTS),
    Mutation(
        "logsumexp: a maximum and k log 2 are added with a rounding",
        MATH,
        "return sum + (log_of_split(k, f) + Isa::keep(Isa::equal(lost, lost), lost));",
        "return sum + log_of_split(k, f);",
    ),
    Mutation("confident row: the winner is counted twice", ROWS, "sum.add_once((winners - 1)", "sum.add_once(winners"),
    Mutation(
        "confident row: ties are forgotten in short rows",
        TILE,
        "sum[w] + Ops::max(winners[w] - Ops::set(1), Ops::set(0))",
        "sum[w]",
    ),
    Mutation("a block's exponentials keep an old pivot", ROWS, "at == pivot ? 1 : pivot.ratio(at)", "1"),
    Mutation("a sum keeps an old pivot", ROWS, "rebase(sum, next_pivot)", "(void)sum", ROWS_TESTS),
    Mutation("pivot: the winner's exponential is taken for 1", PIVOT, "if (near && max > -infinity) {", "if (false) {"),
    Mutation("pivot: log 2 is wrong by a unit", MATH, "ln2 = 0x1.62e43p-1f", "ln2 = 0x1.62e42p-1f", ROWS_TESTS),
    Mutation("a table's log 2 is wrong by a unit", MATH, "ln2 = 0x1.62e43p-5f", "ln2 = 0x1.62e42p-5f", ROWS_TESTS),
    Mutation("a table's entry is wrong by eight units", MATH, "0x000259dd", "0x000259e5", ROWS_TESTS),
    Mutation("a table's factor is forgotten below far pivots", PIVOT, "/ unit;", ";", ROWS_TESTS),
    Mutation("a table's factor is forgotten above far pivots", PIVOT, "* Near::common;", ";", ROWS_TESTS),
    Mutation("masked classes are not kept out of a table", MATH, "Isa::keep(kept[q], Isa::fma(", "(Isa::fma("),
    Mutation("pivot: far rows are taken for near ones", PIVOT, "max <= limit)", "max <= limit * 1024)", ROWS_TESTS),
    Mutation(
        "pivot: the difference from a far maximum is rounded twice",
        PIVOT,
        "from.near ? -from.beyond(max)",
        "from.near ? double(T(from.multiple * Constants::ln2)) - max",
        ROWS_TESTS,
    ),
    Mutation(
        "writer: a block's rest gets the factor of masked ones",
        ROWS,
        "a > -static_cast<T>(__builtin_inf()) && ",
        "",
        ROWS_TESTS,
    ),
    Mutation(
        "writer: a row's only class has no probability of 1",
        ROWS,
        "Rescale<Ops, !has_target>",
        "Rescale<Ops>",
        ROWS_TESTS,
    ),
    Mutation(
        "writer: both rows wait in one stage",
        ROWS,
        "own_stage + (staged && run.lags ? whole_lines<T>(n) : 0)",
        "own_stage",
        ROWS_TESTS,
    ),
    Mutation(
        "denormal results are flushed", VECTORS, "Ops::select(Ops::less(factor, zero), minus_zero - bits, bits)", "zero"
    ),
    Mutation(
        "exp: one coefficient is 4 ULP off", MATH, "0x1.5558acp-5f", "0x1.555aacp-5f", ["tests/test_config.py", *TESTS]
    ),
    Mutation("ignored rows get a gradient", ROWS, "if (target.ignored) {", "if (target.ignored && !out) {"),
    Mutation("ignored short rows keep their NaN", TILE, "if (!all) loss = Ops::keep(wanted, loss);", ""),
    Mutation("halves: bfloat16 is cut off", AVX2, "_mm256_set1_epi32(0x7fff)", "_mm256_set1_epi32(0)", HALVES),
    Mutation("halves: rounded to a wrong even number", STORAGE, "0xfff + (magnitude >> 13 & 1)", "0x1000", HALVES),
    Mutation("labels are not checked", NUMPY, "if position >= 0:", "if position > 2**40:"),
    Mutation("labels: one too many is accepted", DRIVER, "if (y < 0 || y >= classes) {", "if (y < 0 || y > classes) {"),
    Mutation("labels: negative ones are accepted", DRIVER, "if (y < 0 || y >= classes) {", "if (y >= classes) {"),
    Mutation(
        "mean: divided by the number of rows, not of those that count",
        DRIVER,
        "if (y == ignore_index) continue;",
        "if (y == ignore_index) {\n          ++check.count;\n          continue;\n        }",
    ),
    Mutation(
        "mean: the weights do not count in the denominator",
        DRIVER,
        "if (weight) check.weight += double(weight[y]);",
        "if (weight) check.weight += 1;",
    ),
    Mutation("mean: the gradient is not divided", NUMPY, "    scale = quotient(scale, divisor)\n", ""),
    Mutation(
        "denominator is ignored",
        NUMPY,
        "        divisor = denominator if denominator is not None else count if",
        "        divisor = count if",
    ),
    Mutation(
        "the short way: mean is taken as sum",
        MODULE,
        "denominator = mean ? static_cast<double>(targets.count) : 1;",
        "denominator = 1;",
    ),
    Mutation(
        "threads: a total depends on who comes first",
        "src/cpp/pieces.hpp",
        "totals.data()[chunk] = total;",
        "totals.data()[chunk] = 0, totals.data()[thread] += total;",
    ),
    Mutation(
        "rows of an outer axis start at the wrong place",
        DRIVER,
        "run.x = call.x + offset.x_stride + row",
        "run.x = call.x + row",
    ),
    Mutation(
        "objective: the intercept has a prior",
        SOLVERS,
        "gradient[: objective.n_weights] += objective.l2 * weights",
        "gradient += objective.l2 * parameters",
        ESTIMATORS,
    ),
    Mutation(
        "objective: the penalty's gradient is missing",
        SOLVERS,
        "+= objective.l2 * weights",
        "+= 0 * weights",
        ESTIMATORS,
    ),
    Mutation("sgd: no momentum", TRAINING, "mu * velocity - move);", "Ops::set(0) - move);", ESTIMATORS),
    Mutation(
        "sgd: Nesterov's step looks back",
        TRAINING,
        "nesterov ? mu * velocity - move",
        "nesterov ? velocity",
        ESTIMATORS,
    ),
    Mutation("sgd: no threshold", TRAINING, "p = shrunk<Ops>(p, Ops::set(threshold));", ";", ESTIMATORS),
    Mutation(
        "adamw: a threshold without its size", TRAINING, "Ops::set(threshold) / size", "Ops::set(threshold)", ESTIMATORS
    ),
    Mutation(
        "a step's moments stay denormal numbers",
        TRAINING,
        "Ops::keep(Ops::not_less(Ops::max(v, Ops::set(0) - v), smallest), v)",
        "v",
        ESTIMATORS,
    ),
    Mutation("intercepts decay", TRAINING_DRIVER, "rule.decay = 1;", "rule.decay = rule.decay;", ESTIMATORS),
    Mutation(
        "dropped units let errors through", TRAINING_KERNEL, "slope = slope * factor", "slope = slope", ESTIMATORS
    ),
    Mutation(
        "gelu: a rounded square in its exponential",
        TRAINING_MATH,
        "(zero - half) * rounding_of_square(t, square)",
        "zero",
        ESTIMATORS,
    ),
]


def is_compiled(mutation: Mutation) -> bool:
    return mutation.file.startswith("src/")


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True)


def install(python: Path, source: Path) -> subprocess.CompletedProcess[str]:
    build = ["--no-build-isolation", "--no-deps", f"-Cbuild-dir={source.parent / 'build'}"]
    return run(python, "-m", "pip", "install", "--quiet", *build, "-e", ".", cwd=source)


def first_failure(python: Path, source: Path, mutation: Mutation) -> str | None:
    """What the tests say of a mutated source: the first that fails, or None if all pass."""
    if is_compiled(mutation) and (built := install(python, source)).returncode:
        return f"does not compile: {built.stderr.strip().splitlines()[-1]}"
    done = run(python, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider", *mutation.tests, cwd=source)
    if done.returncode == 0:
        return None
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return failed[0].partition(" - ")[0] if failed else f"pytest ended with {done.returncode}: {done.stdout[-300:]}"


def main(words: list[str]) -> int:
    chosen = [m for m in MUTATIONS if not words or any(word in m.name for word in words)]
    chosen.sort(key=is_compiled)  # those in Python first, while the module is as it should be
    survivors = 0
    with tempfile.TemporaryDirectory() as temporary:
        source, python = Path(temporary) / "source", Path(temporary) / "venv/bin/python"
        run("git", "clone", "--quiet", ROOT, source, cwd=ROOT).check_returncode()
        run(sys.executable, "-m", "venv", python.parents[1], cwd=ROOT).check_returncode()
        needed = ["scikit-build-core>=0.11", "pybind11>=3.0", "cmake", "ninja", ".[test]"]
        run(python, "-m", "pip", "install", "--quiet", *needed, cwd=source).check_returncode()
        install(python, source).check_returncode()
        for mutation in chosen:
            path = source / mutation.file
            text = path.read_text()
            if text.count(mutation.old) != 1:
                verdict = f"*** its text is found {text.count(mutation.old)} times in {mutation.file}"
                survivors += 1
            else:
                path.write_text(text.replace(mutation.old, mutation.new))
                failure = first_failure(python, source, mutation)
                path.write_text(text)
                verdict = failure or "*** survived: no test failed"
                survivors += failure is None or failure.startswith("does not compile")
            print(f"{mutation.name}\n    {verdict}", flush=True)
    print(f"{len(chosen)} mutations, {survivors} not caught")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
