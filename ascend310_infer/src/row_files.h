// The rows that preprocess.py wrote (src/export/scored_files.py): .bin files of numbers and ids, and an index.

#ifndef DLRM_INFER_ROW_FILES_H_
#define DLRM_INFER_ROW_FILES_H_

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "model_folder.h"

namespace dlrm {

// The rows of one file.
struct Rows {
  size_t count;
  std::vector<float> dense;  // [count, N]
  std::vector<int32_t> ids;  // [count, L], each below its table's rows, or padding of a list
};

class RowFiles {
 public:
  // Reads the index of a folder; throws Error where it is damaged, or its rows are none for the model.
  RowFiles(std::filesystem::path folder, const ModelFolder &model);

  // What the rows of a folder were coded with.
  static std::string Vocabulary(const std::filesystem::path &folder);

  size_t count() const { return files_.size(); }
  const std::string &name(size_t index) const { return files_[index].name; }
  uint64_t rows() const { return rows_; }
  // What stands for all that is in the folder.
  const std::string &checksum() const { return checksum_; }

  // Reads and checks a file.
  Rows Read(size_t index) const;

 private:
  struct File {
    std::string name;
    uint64_t rows, first_row;  // the number of its first row among all, from 1
    std::string dense_checksum, ids_checksum;
  };

  std::filesystem::path folder_;
  std::vector<Field> fields_;
  uint64_t dense_dim_, ids_, rows_ = 0;
  std::vector<File> files_;
  std::string checksum_;
};

}  // namespace dlrm

#endif  // DLRM_INFER_ROW_FILES_H_
