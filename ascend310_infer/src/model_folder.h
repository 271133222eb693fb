// The folder that export.py wrote (src/export/folder.py): what the graph takes, and which files belong to it.

#ifndef DLRM_INFER_MODEL_FOLDER_H_
#define DLRM_INFER_MODEL_FOLDER_H_

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace dlrm {

constexpr uint64_t kMostRows = INT32_MAX, kMostColumns = 1 << 16, kMostAtOnce = 1 << 24;

constexpr int32_t kPadding = -1;  // stands behind the ids of a list

// What becomes of the vectors of a field's ids: it has one, or a list of them, of which there may be none.
enum class Pool { kOne, kSum, kMean, kMax };

struct Field {
  uint64_t rows;  // of its table
  size_t table;   // the number of that
  size_t ids;     // how many a row has
  Pool pool;
};

struct ModelFolder {
  std::filesystem::path graph, table;  // no table where the graph has the tables
  std::string table_identity;
  uint64_t batch_size, dense_dim, width;
  std::vector<Field> fields;
  std::vector<uint64_t> table_rows;  // of each table
  size_t ids = 0;                    // of a row
  std::string vocabulary;            // SHA-256 of what coded the ids
  std::string description;           // checksum of what describes the model

  bool on_host() const { return !table.empty(); }

  // Reads and checks it: `path` is the folder, or the graph's file in it. Rows of a table are checked when looked up.
  static ModelFolder Load(const std::filesystem::path &path);

  // The same of the model of a description, whose files lie beside it. `beside` says whether the table is there, too.
  static ModelFolder Described(const std::filesystem::path &description, bool beside);

  // Checksums that tell the model from all others.
  std::vector<std::string> identity() const { return {description, vocabulary, table_identity}; }

  // Whether the fields are those of another model, but for the rows of their tables.
  bool HasFieldsOf(const ModelFolder &other) const;

  // A file that a description names, which must lie in the folder, and the check that it has its bytes.
  static std::filesystem::path Inside(const std::filesystem::path &folder, const std::string &name);
  static void CheckSize(const std::filesystem::path &path, const std::string &size, const std::string &remedy);

  // Takes a field behind the others; throws Error where it contradicts them.
  void Add(const Field &field);
};

}  // namespace dlrm

#endif  // DLRM_INFER_MODEL_FOLDER_H_
