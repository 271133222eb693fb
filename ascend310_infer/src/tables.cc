#include "tables.h"

#ifdef __F16C__
#include <immintrin.h>
#endif

#include <algorithm>
#include <cstring>
#include <utility>

#include "error.h"

namespace dlrm {
namespace {

constexpr size_t kAhead = 4;  // rows whose vectors are fetched into the caches beforehand

// The float of a half precision one; no table holds infinite values or nan.
[[maybe_unused]] float FromHalf(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16, rest = half & 0x7FFF;
  // Its bits in a float's places are 2^-112 times the value, whether it is normal or not.
  const uint32_t bits = rest << 13;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  value *= 0x1p112F;
  uint32_t result;
  std::memcpy(&result, &value, sizeof result);
  result |= sign;
  std::memcpy(&value, &result, sizeof value);
  return value;
}

void FromHalves(const uint8_t *row, uint64_t width, float *values) {
  uint64_t i = 0;
#ifdef __F16C__
  for (; i + 8 <= width; i += 8) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i *>(row + 2 * i));
    _mm256_storeu_ps(values + i, _mm256_cvtph_ps(halves));
  }
#endif
  for (; i < width; ++i) values[i] = FromHalf(NumberAt<uint16_t>(row, 2 * i));
}

void FromInt8(const uint8_t *row, uint64_t width, float *values) {
  const float scale = NumberAt<float>(row, 0);
  for (uint64_t i = 0; i < width; ++i) values[i] = scale * static_cast<float>(static_cast<int8_t>(row[4 + i]));
}

// Where each table begins, if they lie behind one another.
std::vector<uint64_t> Starts(const std::vector<uint64_t> &table_rows) {
  std::vector<uint64_t> starts;
  uint64_t total = 0;
  for (const uint64_t rows : table_rows) {
    starts.push_back(total);
    total += rows;
  }
  return starts;
}

}  // namespace

Tables::Tables(std::shared_ptr<TableFile> file)
    : files_{std::move(file)}, table_rows_(files_[0]->table_rows()), starts_(Starts(table_rows_)), first_starts_(starts_) {}

Tables::Tables(const Tables &before, std::shared_ptr<TableFile> file, const std::vector<uint32_t> &ids,
               const std::vector<uint64_t> &table_rows)
    : files_(before.files_), table_rows_(table_rows), starts_(Starts(table_rows)), first_starts_(before.first_starts_) {
  const auto number = static_cast<uint32_t>(files_.size());
  const std::vector<uint64_t> counts = file->table_rows();
  files_.push_back(std::move(file));
  auto old = before.changed_.begin();
  uint32_t place = 0;
  for (size_t table = 0; table < table_rows.size(); ++table) {
    const uint64_t end = place + counts[table], old_end = before.starts_[table] + before.table_rows_[table];
    while (place < end || (old != before.changed_.end() && old->row < old_end)) {
      const bool has_old = old != before.changed_.end() && old->row < old_end;
      const uint64_t old_row = has_old ? old->row - before.starts_[table] + starts_[table] : UINT64_MAX;
      const uint64_t row = place < end ? starts_[table] + ids[place] : UINT64_MAX;
      changed_.push_back(row <= old_row ? Changed{row, number, place} : Changed{old_row, old->file, old->place});
      if (row <= old_row) ++place;
      if (old_row <= row) ++old;
    }
  }
  if (changed_.empty()) return;
  bits_.resize((starts_.back() + table_rows_.back()) / 64 + 1);
  before_.resize(bits_.size());
  for (const Changed &one : changed_) bits_[one.row / 64] |= uint64_t{1} << one.row % 64;
  uint32_t total = 0;
  for (size_t word = 0; word < bits_.size(); ++word) {
    before_[word] = total;
    total += static_cast<uint32_t>(__builtin_popcountll(bits_[word]));
  }
}

Tables::Place Tables::Find(size_t table, int32_t id) const {
  if (!bits_.empty()) {
    const uint64_t row = starts_[table] + static_cast<uint64_t>(id), bits = bits_[row / 64], bit = uint64_t{1} << row % 64;
    if (bits & bit) {
      const Changed &found = changed_[before_[row / 64] + static_cast<size_t>(__builtin_popcountll(bits & (bit - 1)))];
      return {files_[found.file].get(), found.place};
    }
  }
  return {files_[0].get(), first_starts_[table] + static_cast<uint64_t>(id)};
}

template <TableFile::Type type>
void Tables::Read(size_t table, int32_t id, float *vector) const {
  const Place at = Find(table, id);
  const uint8_t *values = at.file->Row(at.row);
  if constexpr (type == TableFile::Type::kFloat32) {
    std::memcpy(vector, values, 4 * width());
  } else if constexpr (type == TableFile::Type::kFloat16) {
    FromHalves(values, width(), vector);
  } else {
    FromInt8(values, width(), vector);
  }
}

// The vectors of a list as one; zeros of an empty list.
template <TableFile::Type type>
void Tables::PoolAs(const Field &field, const int32_t *ids, float *vector, std::vector<float> *scratch) const {
  size_t count = 0;
  for (size_t place = 0; place < field.ids; ++place) {
    if (ids[place] == kPadding) continue;
    Read<type>(field.table, ids[place], count++ == 0 ? vector : scratch->data());
    if (count == 1) continue;
    const float *other = scratch->data();
    for (uint64_t i = 0; i < width(); ++i) {
      vector[i] = field.pool == Pool::kMax ? std::max(vector[i], other[i]) : vector[i] + other[i];
    }
  }
  if (count == 0) std::fill(vector, vector + width(), 0.0F);
  if (count > 1 && field.pool == Pool::kMean) {
    for (uint64_t i = 0; i < width(); ++i) vector[i] /= static_cast<float>(count);
  }
}

template <TableFile::Type type>
void Tables::LookupAs(const ModelFolder &model, const int32_t *ids, size_t rows, float *vectors) const {
  std::vector<float> scratch(width());
  for (size_t row = 0; row < rows; ++row, ids += model.ids) {
    if (row + kAhead < rows) {
      const int32_t *coming = ids + kAhead * model.ids;
      for (const Field &field : model.fields) {
        for (size_t place = 0; place < field.ids; ++place, ++coming) {
          if (*coming == kPadding) continue;
          const Place at = Find(field.table, *coming);
          __builtin_prefetch(at.file->At(at.row));
        }
      }
    }
    const int32_t *own = ids;
    for (const Field &field : model.fields) {
      if (field.pool == Pool::kOne) {
        Read<type>(field.table, *own, vectors);
      } else {
        PoolAs<type>(field, own, vectors, &scratch);
      }
      own += field.ids;
      vectors += width();
    }
  }
}

void Tables::Lookup(const ModelFolder &model, const int32_t *ids, size_t rows, float *vectors) const {
  switch (type()) {
    case TableFile::Type::kFloat32:
      return LookupAs<TableFile::Type::kFloat32>(model, ids, rows, vectors);
    case TableFile::Type::kFloat16:
      return LookupAs<TableFile::Type::kFloat16>(model, ids, rows, vectors);
    case TableFile::Type::kInt8:
      return LookupAs<TableFile::Type::kInt8>(model, ids, rows, vectors);
  }
}

double Tables::ResidentMb() const {
  double total = 0;
  for (const auto &file : files_) total += file->ResidentMb();
  return total;
}

void CheckIds(const std::vector<Field> &fields, const int32_t *ids, size_t rows, uint64_t first_row) {
  for (size_t row = 0; row < rows; ++row) {
    for (size_t number = 0; number < fields.size(); ++number) {
      const Field &field = fields[number];
      for (size_t place = 0; place < field.ids; ++place) {
        const int32_t id = *ids++;
        if (id >= 0 && static_cast<uint64_t>(id) < field.rows) continue;
        if (id == kPadding && field.pool != Pool::kOne) continue;
        throw Error("row " + std::to_string(first_row + row) + ", field " + std::to_string(number + 1) + ": id " +
                    std::to_string(id) + " is not among the " + std::to_string(field.rows) +
                    " of its table: run preprocess.py with this model");
      }
    }
  }
}

}  // namespace dlrm
