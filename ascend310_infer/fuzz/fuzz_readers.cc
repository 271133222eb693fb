// Feeds the readers any bytes as a description, an index or a table file: they must accept or refuse, and never crash.
// The checksums are mended first, so that what stands behind them is reached.
//
//   cmake -S ascend310_infer -B build/fuzz -DFUZZ=ON -DCMAKE_CXX_COMPILER=clang++ && cmake --build build/fuzz
//   build/fuzz/fuzz_readers -max_total_time=600 CORPUS

#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "error.h"
#include "facts.h"
#include "files.h"
#include "model_folder.h"
#include "row_files.h"
#include "tables.h"

namespace {

namespace fs = std::filesystem;

const fs::path &Folder() {
  static const fs::path folder = [] {
    fs::path path = fs::temp_directory_path() / ("fuzz_readers." + std::to_string(getpid()));
    fs::create_directories(path / "dense");
    fs::create_directories(path / "ids");
    return path;
  }();
  return folder;
}

void Put(const std::string &name, const std::string &data) {
  std::ofstream(Folder() / name, std::ios::binary | std::ios::trunc) << data;
}

std::string Sealed(const std::string &text) {
  return text + "crc32\t" + dlrm::Checksum(text.data(), text.size()) + "\n";
}

// Puts right what a table file's checksums are, as far as its header says where they are.
std::string Mended(std::string data) {
  uint64_t header = 0;
  if (data.size() < 48) return data;
  std::memcpy(&header, data.data() + 32, 8);
  if (header > data.size() || header < 52 || header % 4096 != 0) return data;
  const uint64_t pages = (data.size() - header) / 4100;
  const auto put = [&data](uint64_t at, const void *from, size_t size) {
    const auto crc = static_cast<uint32_t>(std::stoul(dlrm::Checksum(from, size), nullptr, 16));
    std::memcpy(data.data() + at, &crc, 4);
  };
  const uint64_t checksums = header + pages * 4096;
  for (uint64_t page = 0; page < pages; ++page) put(checksums + 4 * page, data.data() + header + page * 4096, 4096);
  put(40, data.data() + checksums, 4 * pages);
  put(header - 4, data.data(), header - 4);
  return data;
}

void ReadTable(const std::string &data) {
  Put("table", data);
  const dlrm::Tables table(std::make_shared<dlrm::TableFile>(Folder() / "table"));
  dlrm::ModelFolder model;
  model.table = "table";
  std::vector<int32_t> ids;
  for (const uint64_t rows : table.table_rows()) {  // a field of one value and a list of each
    model.Add({rows, ids.size() / 4, 1, dlrm::Pool::kOne});
    model.Add({rows, ids.size() / 4, 3, dlrm::Pool::kMean});
    ids.insert(ids.end(), {static_cast<int32_t>(rows) - 1, 0, static_cast<int32_t>(rows) - 1, dlrm::kPadding});
  }
  std::vector<float> vectors(model.fields.size() * table.width());
  dlrm::CheckIds(model.fields, ids.data(), 1, 1);
  table.Lookup(model, ids.data(), 1, vectors.data());
}

void ReadRows(const std::string &index, const std::string &dense, const std::string &ids) {
  dlrm::ModelFolder model;
  model.dense_dim = 2;
  model.Add({5, 0, 1, dlrm::Pool::kOne});
  model.Add({7, 1, 1, dlrm::Pool::kOne});
  model.vocabulary = "v";
  Put("index", index);
  Put("dense/a", dense);
  Put("ids/a", ids);
  const dlrm::RowFiles rows(Folder(), model);
  for (size_t file = 0; file < rows.count(); ++file) rows.Read(file);
}

void ReadModel(const std::string &description) {
  Put("graph.mindir", "graph");
  Put("m.model", description);
  dlrm::ModelFolder::Load(Folder());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
  if (size == 0) return 0;
  const std::string data(reinterpret_cast<const char *>(bytes) + 1, size - 1);
  try {
    switch (bytes[0] % 7) {
      case 0:
        ReadTable(data);
        break;
      case 1:
        ReadTable(Mended(data));
        break;
      case 2:
        ReadRows(data, "", "");
        break;
      case 3:
        ReadRows(Sealed(data), "", "");
        break;
      case 4: {  // one file of two rows, whose bytes are what is fuzzed
        const std::string dense = data.substr(0, 16), ids = data.size() > 16 ? data.substr(16) : "";
        ReadRows(Sealed("dlrm\trows\t1\ndense\t2\nfield\t5\nfield\t7\nvocabulary\tv\nfile\ta\t2\t" +
                        dlrm::Checksum(dense.data(), dense.size()) + "\t" + dlrm::Checksum(ids.data(), ids.size()) +
                        "\n"),
                 dense, ids);
        break;
      }
      case 5:
        ReadModel(data);
        break;
      default:
        ReadModel(Sealed(data));
    }
  } catch (const dlrm::Error &) {
  }
  return 0;
}
