#include "network.h"

#include <dlfcn.h>
#include <sched.h>

#include <filesystem>
#include <string>

#include "error.h"
#include "lite.h"
#include "quiet.h"

namespace dlrm {
namespace {

#define NAME_OF(macro) TEXT_OF(macro)
#define TEXT_OF(name) #name

// Loads the library that lies beside the program, which stays to the end: threads of Lite's may still be in it. As of a
// library that the program is linked with, names in it and in Lite can be found by what Lite loads later.
LoadGraph *Library() {
  const auto path = std::filesystem::read_symlink("/proc/self/exe").parent_path() / LITE_LIBRARY;
  void *const library = dlopen(path.c_str(), RTLD_LAZY | RTLD_GLOBAL);
  void *const found = library ? dlsym(library, NAME_OF(LOAD_GRAPH)) : nullptr;
  if (!found) {
    const char *const why = dlerror();
    throw Error("MindSpore Lite can't be loaded (" + std::string(why ? why : "no reason given") +
                "): build the program again with ascend310_infer/build.sh, and leave " LITE_LIBRARY
                " beside it and LITE_HOME in its place");
  }
  return reinterpret_cast<LoadGraph *>(found);
}

GraphSpec Spec(const ModelFolder &model, const Options &options, uint64_t block, uint64_t threads) {
  GraphSpec spec;
  spec.path = model.graph.string();
  spec.batch_size = model.batch_size;
  spec.dense_dim = model.dense_dim;
  spec.fields = model.fields.size();
  spec.width = model.width;
  spec.ids = model.ids;
  spec.takes_vectors = model.on_host();
  spec.on_cpu = options.on_cpu();
  spec.device_id = options.device_id;
  spec.block = block;
  spec.threads = threads;
  return spec;
}

}  // namespace

void StayOnOneProcessor() {
  const int processor = sched_getcpu();
  if (processor < 0 || processor >= CPU_SETSIZE) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(processor, &set);
  sched_setaffinity(0, sizeof set, &set);
}

Network::Network(const ModelFolder &model, const Options &options, uint64_t block, uint64_t threads) {
  const Quiet quiet;
  static LoadGraph *const load = Library();
  graph_.reset(load(Spec(model, options, block, threads)));
}

Network::~Network() = default;

float *Network::dense() { return graph_->dense(); }

void *Network::second() { return graph_->second(); }

const float *Network::Run() {
  const Quiet quiet;
  return graph_->Run();
}

}  // namespace dlrm
