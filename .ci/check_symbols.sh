#!/usr/bin/env bash
# Whatever a vector instruction set's file defines for the linker must carry the set's name. Anything else could be
# merged with another file's copy of the same function, and run on a processor that lacks the instructions.
set -euo pipefail
build=$1
objects=$(find "$build" -name 'avx*.cpp.o' -o -name 'neon*.cpp.o')
[ -n "$objects" ] || { echo "no vector instruction set was built in $build"; exit 1; }
for object in $objects; do
  name=$(basename "$object" .cpp.o)
  name=${name%_terms}
  name=${name%_training}
  if nm -C --defined-only "$object" | awk '$2 != "r" && $3 !~ /^\$/' | grep -v -i "$name"; then
    echo "$object defines the names above, which do not tell their instruction set"
    exit 1
  fi
done
