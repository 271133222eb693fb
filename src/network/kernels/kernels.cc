// Operators for the CPU that MindSpore's runtime calls through ops.Custom; src/network/cpu_kernels.py builds and names
// them. The compiler gets this file alone, so that all of them are one unit, in which everything but the operators is
// internal: functions are inlined, and the one pool of threads is not shared with another build in the same process.
//
// Legend of all files: B batch, F fields, D width of a vector, R rows of all tables, P pairs of vectors that interact,
// I inputs and O outputs of a layer.
//
// Sums run in an order that does not depend on the number of threads, so results repeat to the bit.

#include "lookup.cc"
#include "interaction.cc"
#include "layers.cc"
#include "loss.cc"
#include "steps.cc"
#include "rules.cc"
