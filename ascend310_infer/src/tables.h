// The embedding tables: those of an exported model, in one file, and what deltas changed of them, in files of their own.
// src/export/layered_tables.py does the same.

#ifndef DLRM_INFER_TABLES_H_
#define DLRM_INFER_TABLES_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "model_folder.h"
#include "table_file.h"

namespace dlrm {

// Tables never change: a delta makes others, which have files in common with those before. Several threads may look
// rows up at once.
class Tables {
 public:
  explicit Tables(std::shared_ptr<TableFile> file);
  // Those before, with other rows, and more: `ids` are of the rows in `file`, table by table, and rise in each, as
  // Delta has checked.
  Tables(const Tables &before, std::shared_ptr<TableFile> file, const std::vector<uint32_t> &ids,
         const std::vector<uint64_t> &table_rows);

  // Vectors [rows, fields, width] of the model's ids [rows, ids], which CheckIds has let pass; those of lists are
  // pooled.
  void Lookup(const ModelFolder &model, const int32_t *ids, size_t rows, float *vectors) const;

  const std::vector<uint64_t> &table_rows() const { return table_rows_; }
  uint64_t width() const { return files_[0]->width(); }
  TableFile::Type type() const { return files_[0]->type(); }
  double ResidentMb() const;  // of the files' pages, those this process has in memory

 private:
  // A row that is not in the first file: its number among all rows, and where it is.
  struct Changed {
    uint64_t row;
    uint32_t file, place;
  };
  struct Place {
    TableFile *file;
    uint64_t row;
  };

  Place Find(size_t table, int32_t id) const;
  template <TableFile::Type type>
  void LookupAs(const ModelFolder &model, const int32_t *ids, size_t rows, float *vectors) const;
  template <TableFile::Type type>
  void PoolAs(const Field &field, const int32_t *ids, float *vector, std::vector<float> *scratch) const;
  template <TableFile::Type type>
  void Read(size_t table, int32_t id, float *vector) const;

  std::vector<std::shared_ptr<TableFile>> files_;
  std::vector<uint64_t> table_rows_, starts_, first_starts_;  // of each table, and its first row, here and in the first file
  std::vector<Changed> changed_;                              // by their rows
  // Which rows are among these, a bit each, and how many before each 64 rows; both empty if there are none.
  std::vector<uint64_t> bits_;
  std::vector<uint32_t> before_;
};

// Throws Error for an id that its table has not, padding of lists apart; `first_row` is the number of the first row, from
// 1, for the message.
void CheckIds(const std::vector<Field> &fields, const int32_t *ids, size_t rows, uint64_t first_row);

}  // namespace dlrm

#endif  // DLRM_INFER_TABLES_H_
