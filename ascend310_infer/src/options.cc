#include "options.h"

#include <set>

#include "error.h"
#include "files.h"
#include "model_folder.h"

namespace dlrm {

const char kHelp[] = R"(Scores rows with an exported DLRM: main --model=export/dlrm.mindir --input=preprocess_Result [...]
  --model=PATH         the graph, or its folder, that export.py wrote
  --input=FOLDER       rows that preprocess.py wrote
  --output=FOLDER      where result_Files/ and time_Result/ go (default: here)
  --follow=FOLDER      where deltas of the model come, each in a folder that export.py --delta_from wrote: between two
                       requests they change the model, as far as the rows are coded with its vocabulary
  --device_type=NAME   Ascend, whichever card it is (310, 310P, ...), or CPU (default Ascend)
  --device_id=N        number of the Ascend card (default 0)
  --batch_size=N       rows of a request (default: the model's; on Ascend no other is possible)
  --threads=N          threads of the CPU (default: one for each processor, if they gain something), used as far
                       as there is work for them; where it is for one, the program keeps to one processor
)";

namespace {

uint64_t AboveZero(const std::string &text, uint64_t largest, const std::string &name) {
  const uint64_t number = ParseNumber(text, largest, name);
  if (number == 0) throw Error(name + " is '" + text + "': it must be a whole number above 0");
  return number;
}

}  // namespace

Options Options::Parse(int argc, char **argv) {
  Options options;
  std::set<std::string> given;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--help" || word == "-h") {
      options.help = true;
      return options;
    }
    const size_t equals = word.find('=');
    const std::string name = word.substr(0, equals), value = equals == std::string::npos ? "" : word.substr(equals + 1);
    if (!given.insert(name).second) throw Error("option " + name + " is given twice: give it once");
    const bool known = std::string(kHelp).find("  " + name + "=") != std::string::npos;
    if (known && value.empty()) throw Error("option " + name + " is '': give a value, as in " + name + "=VALUE");
    if (name == "--model") {
      options.model = value;
    } else if (name == "--input") {
      options.input = value;
    } else if (name == "--output") {
      options.output = value;
    } else if (name == "--follow") {
      options.follow = value;
    } else if (name == "--device_type") {
      options.device_type = value;
    } else if (name == "--device_id") {
      options.device_id = ParseNumber(value, 1023, name);
    } else if (name == "--batch_size") {
      options.batch_size = AboveZero(value, kMostAtOnce, name);
    } else if (name == "--threads") {
      options.threads = AboveZero(value, 1024, name);
    } else {
      throw Error("unknown option '" + word + "': --help lists the options, which have the form --name=value");
    }
  }
  if (options.model.empty() || options.input.empty()) {
    throw Error("--model and --input are needed: --help shows how");
  }
  if (options.device_type != "Ascend" && options.device_type != "CPU") {
    throw Error("--device_type is '" + options.device_type + "': it must be Ascend or CPU");
  }
  if (options.on_cpu() && given.count("--device_id")) {
    throw Error("--device_id has no effect with --device_type=CPU: drop it");
  }
  if (!options.on_cpu() && options.threads) {
    throw Error("--threads has no effect with --device_type=Ascend: drop it");
  }
  return options;
}

}  // namespace dlrm
