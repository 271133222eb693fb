// The embedding tables in one file that is mapped into memory; src/export/table_file.py says what stands where.

#ifndef DLRM_INFER_TABLE_FILE_H_
#define DLRM_INFER_TABLE_FILE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "model_folder.h"

namespace dlrm {

class TableFile {
 public:
  // Maps a file and checks its header; throws Error where it is damaged. Its rows are checked, page by page, when they
  // are looked up.
  explicit TableFile(const std::filesystem::path &path);
  TableFile(const TableFile &) = delete;
  TableFile &operator=(const TableFile &) = delete;
  ~TableFile();

  // Vectors [rows, fields, width] of the model's ids [rows, ids], which CheckIds has let pass; those of lists are
  // pooled. Several threads may ask at once.
  void Lookup(const ModelFolder &model, const int32_t *ids, size_t rows, float *vectors);

  const std::vector<uint64_t> &table_rows() const { return table_rows_; }
  uint64_t width() const { return width_; }
  const std::string &identity() const { return identity_; }  // of the header, and so of all rows
  double ResidentMb() const;                                 // of the file's pages, those this process has in memory

 private:
  enum class Type : uint32_t { kFloat32, kFloat16, kInt8 };

  template <Type type>
  void LookupAs(const ModelFolder &model, const int32_t *ids, size_t rows, float *vectors);
  template <Type type>
  void PoolAs(const Field &field, const int32_t *ids, float *vector, std::vector<float> *scratch);
  template <Type type>
  void Read(size_t table, int32_t id, float *vector);
  const uint8_t *Row(size_t table, int32_t id) const;
  void CheckPages(const uint8_t *row);

  std::filesystem::path path_;
  const uint8_t *data_ = nullptr;  // the whole file
  uint64_t size_ = 0;
  Type type_ = Type::kFloat32;
  uint64_t width_ = 0, row_bytes_ = 0;
  std::vector<uint64_t> table_rows_, starts_;  // of each table, and its first row in the file
  const uint8_t *rows_ = nullptr;
  const uint8_t *checksums_ = nullptr;
  std::vector<std::atomic<bool>> checked_;  // pages
  std::string identity_;
};

// Throws Error for an id that its table has not, padding of lists apart; `first_row` is the number of the first row, from
// 1, for the message.
void CheckIds(const std::vector<Field> &fields, const int32_t *ids, size_t rows, uint64_t first_row);

}  // namespace dlrm

#endif  // DLRM_INFER_TABLE_FILE_H_
