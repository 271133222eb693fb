// The folder that export.py wrote (src/export/folder.py): what the graph takes, and which files belong to it.

#ifndef DLRM_INFER_MODEL_FOLDER_H_
#define DLRM_INFER_MODEL_FOLDER_H_

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace dlrm {

constexpr uint64_t kMostRows = INT32_MAX, kMostColumns = 1 << 16, kMostAtOnce = 1 << 24;

struct ModelFolder {
  std::filesystem::path graph, table;  // no table where the graph has the tables
  std::string table_identity;
  uint64_t batch_size, dense_dim, width;
  std::vector<uint64_t> table_rows;  // of each field
  std::string vocabulary;            // SHA-256 of what coded the ids

  bool on_host() const { return !table.empty(); }
  size_t fields() const { return table_rows.size(); }

  // Reads and checks it: `path` is the folder, or the graph's file in it. Rows of a table are checked when looked up.
  static ModelFolder Load(const std::filesystem::path &path);
};

}  // namespace dlrm

#endif  // DLRM_INFER_MODEL_FOLDER_H_
