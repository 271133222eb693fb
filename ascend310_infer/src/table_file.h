// The embedding tables in one file that is mapped into memory; src/export/table_file.py says what stands where.

#ifndef DLRM_INFER_TABLE_FILE_H_
#define DLRM_INFER_TABLE_FILE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

namespace dlrm {

// A number that stands at any place among bytes.
template <typename Number>
Number NumberAt(const uint8_t *data, uint64_t offset) {
  Number number;
  std::memcpy(&number, data + offset, sizeof number);
  return number;
}

class TableFile {
 public:
  // Maps a file and checks its header; throws Error where it is damaged. Its rows are checked, page by page, when they
  // are read. Several threads may read at once.
  explicit TableFile(const std::filesystem::path &path);
  TableFile(const TableFile &) = delete;
  TableFile &operator=(const TableFile &) = delete;
  ~TableFile();

  enum class Type : uint32_t { kFloat32, kFloat16, kInt8 };

  // What the file holds for one of its rows, numbered over all tables: where it is, and that checked.
  const uint8_t *At(uint64_t row) const { return rows_ + row * row_bytes_; }
  const uint8_t *Row(uint64_t row) {
    CheckPages(At(row));
    return At(row);
  }
  // Throws Error where any page is damaged.
  void CheckAll();

  Type type() const { return type_; }
  const std::vector<uint64_t> &table_rows() const { return table_rows_; }
  uint64_t width() const { return width_; }
  const std::string &identity() const { return identity_; }  // of the header, and so of all rows
  double ResidentMb() const;                                 // of the file's pages, those this process has in memory

 private:
  void CheckPages(const uint8_t *row);
  void CheckPage(uint64_t page);

  std::filesystem::path path_;
  const uint8_t *data_ = nullptr;  // the whole file
  uint64_t size_ = 0;
  Type type_ = Type::kFloat32;
  uint64_t width_ = 0, row_bytes_ = 0;
  std::vector<uint64_t> table_rows_;
  const uint8_t *rows_ = nullptr;
  const uint8_t *checksums_ = nullptr;
  std::vector<std::atomic<bool>> checked_;  // pages
  std::string identity_;
};

}  // namespace dlrm

#endif  // DLRM_INFER_TABLE_FILE_H_
