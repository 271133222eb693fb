#include "table_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#ifdef __F16C__
#include <immintrin.h>
#endif

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "error.h"
#include "files.h"

namespace dlrm {
namespace {

constexpr char kMagic[] = "DLRMTBL\n";
constexpr uint64_t kPage = 4096, kFixedBytes = 48;
constexpr size_t kAhead = 4;  // rows whose vectors are fetched into the caches beforehand

template <typename Number>
Number At(const uint8_t *data, uint64_t offset) {
  Number number;
  std::memcpy(&number, data + offset, sizeof number);
  return number;
}

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
  for (; i < width; ++i) values[i] = FromHalf(At<uint16_t>(row, 2 * i));
}

void FromInt8(const uint8_t *row, uint64_t width, float *values) {
  const float scale = At<float>(row, 0);
  for (uint64_t i = 0; i < width; ++i) values[i] = scale * static_cast<float>(static_cast<int8_t>(row[4 + i]));
}

}  // namespace

TableFile::TableFile(const std::filesystem::path &path) : path_(path) {
  const auto damaged = [&path](const std::string &reason) {
    return Error(path.string() + " is no whole table file, " + reason + ": export the model again");
  };
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) throw Error(path.string() + " can't be read: " + std::strerror(errno));
  struct stat status;
  const bool known = fstat(file, &status) == 0 && S_ISREG(status.st_mode);
  size_ = known ? static_cast<uint64_t>(status.st_size) : 0;
  void *mapped = size_ >= kPage ? mmap(nullptr, size_, PROT_READ, MAP_SHARED, file, 0) : MAP_FAILED;
  const int reason = errno;
  close(file);
  if (size_ < kPage) throw damaged("it has " + std::to_string(size_) + " bytes");
  if (mapped == MAP_FAILED) throw Error(path.string() + " can't be mapped into memory: " + std::strerror(reason));
  data_ = static_cast<const uint8_t *>(mapped);
  madvise(mapped, size_, MADV_RANDOM);  // rows lie anywhere: reading ahead would fill the memory with others

  try {
    const auto type = At<uint32_t>(data_, 12);
    const uint64_t width = At<uint32_t>(data_, 16), tables = At<uint32_t>(data_, 20), rows = At<uint64_t>(data_, 24);
    const uint64_t header = At<uint64_t>(data_, 32);
    if (std::memcmp(data_, kMagic, 8) != 0) throw damaged("it does not begin as one of this program");
    if (At<uint32_t>(data_, 8) != 1 || type > 2 || width - 1 >= kMostColumns || tables - 1 >= kMostColumns ||
        rows > kMostRows || header % kPage != 0 || header < kFixedBytes + 8 * tables + 4 || header > size_) {
      throw damaged("its header has values that are none");
    }
    identity_ = Checksum(data_, header - 4);
    if (identity_ != Hex(At<uint32_t>(data_, header - 4))) throw damaged("the checksum of its header differs");
    type_ = static_cast<Type>(type);
    width_ = width;
    row_bytes_ = type_ == Type::kFloat32 ? 4 * width : type_ == Type::kFloat16 ? 2 * width : 4 + width;
    uint64_t total = 0;
    for (uint64_t table = 0; table < tables; ++table) {
      table_rows_.push_back(std::min(At<uint64_t>(data_, kFixedBytes + 8 * table), kMostRows));
      starts_.push_back(total);
      total += table_rows_.back();
    }
    const uint64_t pages = (rows * row_bytes_ + kPage - 1) / kPage;
    if (total != rows) throw damaged("the rows of its tables do not add up");
    if (size_ != header + pages * (kPage + 4)) {
      throw damaged("it has " + std::to_string(size_) + " bytes instead of " +
                    std::to_string(header + pages * (kPage + 4)));
    }
    rows_ = data_ + header;
    checksums_ = rows_ + pages * kPage;
    if (Checksum(checksums_, 4 * pages) != Hex(At<uint32_t>(data_, 40))) {
      throw damaged("the checksum of its checksums differs");
    }
    checked_ = std::vector<std::atomic<bool>>(pages);
  } catch (...) {
    munmap(const_cast<uint8_t *>(data_), size_);
    throw;
  }
}

TableFile::~TableFile() { munmap(const_cast<uint8_t *>(data_), size_); }

const uint8_t *TableFile::Row(size_t table, int32_t id) const {
  return rows_ + (starts_[table] + static_cast<uint64_t>(id)) * row_bytes_;
}

void TableFile::CheckPages(const uint8_t *row) {
  const auto first = static_cast<uint64_t>(row - rows_) / kPage;
  const auto last = (static_cast<uint64_t>(row - rows_) + row_bytes_ - 1) / kPage;
  for (uint64_t page = first; page <= last; ++page) {
    if (checked_[page].load(std::memory_order_relaxed)) continue;
    if (crc32(0, rows_ + page * kPage, kPage) != At<uint32_t>(checksums_, 4 * page)) {
      throw Error(path_.string() + " is damaged (the checksum of page " + std::to_string(page) +
                  " of its rows differs): export the model again");
    }
    checked_[page].store(true, std::memory_order_relaxed);  // two threads may both check a page
  }
}

template <TableFile::Type type>
void TableFile::Read(size_t table, int32_t id, float *vector) {
  const uint8_t *values = Row(table, id);
  CheckPages(values);
  if constexpr (type == Type::kFloat32) {
    std::memcpy(vector, values, row_bytes_);
  } else if constexpr (type == Type::kFloat16) {
    FromHalves(values, width_, vector);
  } else {
    FromInt8(values, width_, vector);
  }
}

// The vectors of a list as one; zeros of an empty list.
template <TableFile::Type type>
void TableFile::PoolAs(const Field &field, const int32_t *ids, float *vector, std::vector<float> *scratch) {
  size_t count = 0;
  for (size_t place = 0; place < field.ids; ++place) {
    if (ids[place] == kPadding) continue;
    Read<type>(field.table, ids[place], count++ == 0 ? vector : scratch->data());
    if (count == 1) continue;
    const float *other = scratch->data();
    for (uint64_t i = 0; i < width_; ++i) {
      vector[i] = field.pool == Pool::kMax ? std::max(vector[i], other[i]) : vector[i] + other[i];
    }
  }
  if (count == 0) std::fill(vector, vector + width_, 0.0F);
  if (count > 1 && field.pool == Pool::kMean) {
    for (uint64_t i = 0; i < width_; ++i) vector[i] /= static_cast<float>(count);
  }
}

template <TableFile::Type type>
void TableFile::LookupAs(const ModelFolder &model, const int32_t *ids, size_t rows, float *vectors) {
  std::vector<float> scratch(width_);
  for (size_t row = 0; row < rows; ++row, ids += model.ids) {
    if (row + kAhead < rows) {
      const int32_t *coming = ids + kAhead * model.ids;
      for (const Field &field : model.fields) {
        for (size_t place = 0; place < field.ids; ++place, ++coming) {
          if (*coming != kPadding) __builtin_prefetch(Row(field.table, *coming));
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
      vectors += width_;
    }
  }
}

void TableFile::Lookup(const ModelFolder &model, const int32_t *ids, size_t rows, float *vectors) {
  switch (type_) {
    case Type::kFloat32:
      return LookupAs<Type::kFloat32>(model, ids, rows, vectors);
    case Type::kFloat16:
      return LookupAs<Type::kFloat16>(model, ids, rows, vectors);
    case Type::kInt8:
      return LookupAs<Type::kInt8>(model, ids, rows, vectors);
  }
}

double TableFile::ResidentMb() const {
  std::ifstream maps("/proc/self/smaps");
  std::string line;
  bool ours = false;
  while (std::getline(maps, line)) {  // a mapping begins with its addresses, FROM-TO in hex digits
    if (line.find('-') < line.find(' ')) {
      ours = std::strtoull(line.c_str(), nullptr, 16) == reinterpret_cast<uintptr_t>(data_);
    } else if (ours && line.compare(0, 4, "Rss:") == 0) {
      return MbOfKib(line.substr(4));
    }
  }
  return 0;
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
