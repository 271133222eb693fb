// Parses blocks of raw text, for src/rows/lines.py, which does the same in NumPy and says, with keys.py beside it, what
// the rules are. Lines that need more than the plain rules here - bad ones, numbers beyond the range of a double - are
// left to it.

#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#ifdef __AVX2__
#include <immintrin.h>
#endif

namespace {

constexpr uint64_t kMultiplier = 0x9E3779B97F4A7C15, kMultiplier2 = 0xD6E8FEB86659FD93;

// The first bytes of a cell as a number, little-endian, with zeros behind. `left` bytes may be read.
uint64_t Word(const uint8_t *cell, int64_t size, int64_t left) {
  uint64_t word = 0;
  if (left < 8) {
    std::memcpy(&word, cell, size < left ? size : left);
    return word;
  }
  std::memcpy(&word, cell, 8);
  return size >= 8 ? word : word & ((uint64_t{1} << 8 * size) - 1);
}

uint64_t Turned(uint64_t word, int bits) { return word << bits | word >> (64 - bits); }

// SipHash-1-3 of a cell. Three rounds more give another hash, a check, which is never 0.
uint64_t SipHash(const uint8_t *cell, int64_t size, int64_t left, const uint64_t *seed, uint32_t *check) {
  uint64_t a = seed[0] ^ 0x736f6d6570736575, b = seed[1] ^ 0x646f72616e646f6d;
  uint64_t c = seed[0] ^ 0x6c7967656e657261, d = seed[1] ^ 0x7465646279746573;
  const auto round = [&] {
    a += b, c += d;
    b = Turned(b, 13) ^ a, d = Turned(d, 16) ^ c;
    a = Turned(a, 32);
    c += b, a += d;
    b = Turned(b, 17) ^ c, d = Turned(d, 21) ^ a;
    c = Turned(c, 32);
  };
  for (int64_t done = 0; done <= size; done += 8) {
    uint64_t word = Word(cell + done, size - done, left - done);
    if (size - done < 8) word |= static_cast<uint64_t>(size) << 56;
    d ^= word;
    round();
    a ^= word;
  }
  c ^= 0xFF;
  for (int i = 0; i < 3; ++i) round();
  const uint64_t hash = a ^ b ^ c ^ d;
  if (check) {
    b ^= 0xDD;
    for (int i = 0; i < 3; ++i) round();
    *check = static_cast<uint32_t>(a ^ b ^ c ^ d) | 1;
  }
  return hash;
}

// The hash of vocabularies without a seed.
uint64_t FirstHash(const uint8_t *cell, int64_t size, int64_t left) {
  uint64_t hash = static_cast<uint64_t>(size) * kMultiplier;
  for (int64_t done = 0; done < size; done += 8) {
    uint64_t mixed = (hash ^ Word(cell + done, size - done, left - done)) * kMultiplier;
    mixed = (mixed ^ mixed >> 32) * kMultiplier2;
    hash = mixed ^ mixed >> 32;
  }
  return hash;
}

// Not inlined, for which short cells would pay.
__attribute__((noinline)) uint64_t LongKey(const uint8_t *cell, int64_t size, int64_t left, const uint64_t *seed,
                                           uint32_t *checks, int64_t place) {
  constexpr uint64_t kNone[2] = {0, 0};
  uint64_t hash = 0;
  if (seed || checks) hash = SipHash(cell, size, left, seed ? seed : kNone, checks ? checks + place : nullptr);
  if (!seed) hash = FirstHash(cell, size, left);
  return (hash & ~uint64_t{0xC0}) | 0x80;
}

uint64_t Key(const uint8_t *cell, int64_t size, int64_t left, const uint64_t *seed, uint32_t *checks, int64_t place) {
  const uint64_t key = Word(cell, size, left);
  return size <= 8 && (key & 0xC0) != 0x80 ? key : LongKey(cell, size, left, seed, checks, place);
}

// Any other number: a sign, digits with or without a point, an exponent. The double next to it, rounded to a float, as
// NumPy does.
__attribute__((noinline)) bool OtherNumber(const uint8_t *cell, int64_t size, float *number) {
#ifdef __cpp_lib_to_chars
  const char *begin = reinterpret_cast<const char *>(cell), *end = begin + size;
  const char *digits = begin + (*begin == '+' || *begin == '-');
  begin += *begin == '+';
  if (digits == end || !((*digits >= '0' && *digits <= '9') || *digits == '.')) return false;  // inf, nan, "+-5"
  double value = 0;
  const auto [stop, error] = std::from_chars(begin, end, value);
  if (error != std::errc{} || stop != end || !(std::fabs(value) <= std::numeric_limits<float>::max())) return false;
  *number = static_cast<float>(value) + 0.0f;  // 0 of -0, which has other bits
  return true;
#else
  return false;
#endif
}

// A cell's number: of at most eight digits, perhaps with a minus before them, at once; an empty one is not a number.
// `before` bytes that stand before the cell may be read.
bool Number(const uint8_t *cell, int64_t size, int64_t before, float *number) {
  *number = std::numeric_limits<float>::quiet_NaN();
  if (size == 0) return true;
  const bool negative = size > 1 && cell[0] == '-';
  const int64_t digits = size - negative;
  if (digits > 8) return OtherNumber(cell, size, number);
  uint64_t word = 0;  // the eight bytes that end the cell, "0" in place of those before its digits
  if (before + size >= 8) {
    std::memcpy(&word, cell + size - 8, 8);
  } else {
    std::memcpy(reinterpret_cast<uint8_t *>(&word) + 8 - digits, cell + negative, digits);
  }
  constexpr uint64_t kZeros = 0x3030303030303030;
  const int missing = static_cast<int>(8 * (8 - digits));
  word = (word >> missing << missing) | (kZeros & ~(~uint64_t{0} << missing));
  word ^= kZeros;  // each byte is its digit, or above 9
  if (((word + 0x7676767676767676) | word) & 0x8080808080808080) return OtherNumber(cell, size, number);
  // Digits to pairs, pairs to fours, fours to one number.
  word = (word * 10 + (word >> 8)) & 0x00FF00FF00FF00FF;
  word = (word * 100 + (word >> 16)) & 0x0000FFFF0000FFFF;
  word = (word * 10000 + (word >> 32)) & 0x00000000FFFFFFFF;
  const float value = static_cast<float>(word);
  *number = negative ? 0 - value : value;  // 0 - 0 is 0, where -0 would have other bits
  return true;
}

// A number that is written with another decimal sign than a point, or with a sign between thousands; see `with_point` in
// lines.py.
bool WrittenNumber(const uint8_t *cell, int64_t size, char decimal, char thousands, float *number) {
  char plain[64];
  if (size >= static_cast<int64_t>(sizeof plain)) return false;
  int64_t used = 0, group = 0, groups = 0;
  bool whole = true;
  for (int64_t i = 0; i < size; ++i) {
    const char sign = static_cast<char>(cell[i]);
    if (whole && thousands && sign == thousands) {
      if (groups ? group != 3 : group < 1 || group > 3) return false;
      ++groups, group = 0;
      continue;
    }
    if (whole && sign == decimal) {
      if (groups && group != 3) return false;
      whole = false;
      plain[used++] = '.';
      continue;
    }
    if (sign == '.' || (groups && whole && (sign < '0' || sign > '9'))) return false;
    group += sign >= '0' && sign <= '9';
    plain[used++] = sign;
  }
  if (whole && groups && group != 3) return false;
  return OtherNumber(reinterpret_cast<const uint8_t *>(plain), used, number);
}

// Finds the separators and control characters of a text one after the other, 32 bytes at a time.
class Marks {
 public:
  Marks(const uint8_t *text, int64_t size, uint8_t separator) : text_(text), size_(size), separator_(separator) {
    Load();
  }

  // The next one's place. The text ends with one.
  int64_t Next() {
    while (!mask_) {
      base_ += 32;
      Load();
    }
    const int64_t place = base_ + __builtin_ctz(mask_);
    mask_ &= mask_ - 1;
    return place;
  }

  // Whether all bytes so far are ASCII; with the text's last mark, all.
  bool ascii() const { return high_ == 0; }

 private:
  void Load() {
    mask_ = 0;
#ifdef __AVX2__
    if (base_ + 32 <= size_) {
      const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(text_ + base_));
      const __m256i low = _mm256_cmpeq_epi8(_mm256_min_epu8(bytes, _mm256_set1_epi8('\n')), bytes);
      const __m256i same = _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(static_cast<char>(separator_)));
      mask_ = static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_or_si256(low, same)));
      high_ |= static_cast<uint32_t>(_mm256_movemask_epi8(bytes));
      return;
    }
#endif
    const int64_t count = size_ - base_ < 32 ? size_ - base_ : 32;
    for (int64_t i = 0; i < count; ++i) {
      mask_ |= uint32_t{text_[base_ + i] <= '\n' || text_[base_ + i] == separator_} << i;
      high_ |= text_[base_ + i] & 0x80;
    }
  }

  const uint8_t *text_;
  int64_t size_, base_ = 0;
  uint8_t separator_;
  uint32_t mask_ = 0, high_ = 0;  // high_: not 0 once a byte was no ASCII
};

}  // namespace

// Args:
//   text, size: whole lines, each with its end.
//   separator: between cells.
//   roles: of each column of the file: -1 unused, 0 label, 1 to dense a number, dense + 1 and so on a category.
//   seed: of the keys of long categories, two numbers; null for the keys of vocabularies without one.
//   labels [rows], numbers [rows, dense], keys [fields, rows]: take a row for each line, an odd one's without meaning.
//   odd: takes the first byte of each odd line, and the one behind it; odd_lines takes which line it is, from 0.
//   ascii: takes whether all of the text is ASCII.
//   checks: takes the checks of hashed keys, and nothing for other keys, in the places of `keys`; null for none.
// Returns how many odd lines there are.
extern "C" int64_t ParseLines(const uint8_t *text, int64_t size, int32_t separator, const int32_t *roles, int32_t width,
                              int32_t dense, const uint64_t *seed, int64_t rows, uint8_t *labels, float *numbers,
                              uint64_t *keys, int64_t *odd, int64_t *odd_lines, uint8_t *ascii,
                              uint32_t *checks) {
  Marks marks(text, size, static_cast<uint8_t>(separator));
  int64_t odd_count = 0, begin = 0;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t line = begin;
    bool good = true, ends = false;
    int32_t column = 0;
    while (!ends) {
      const int64_t cell = begin, end = marks.Next();
      begin = end + 1;
      ends = text[end] == '\n';
      good = good && column < width && (ends || text[end] == separator);  // else a control character
      if (!good) continue;
      const int64_t length = end - cell - (ends && end > cell && text[end - 1] == '\r');
      const int32_t role = roles[column++];
      if (role > dense) {
        const int64_t place = (role - dense - 1) * rows + row;
        keys[place] = Key(text + cell, length, size - cell, seed, checks, place);
      } else if (role > 0) {
        good = Number(text + cell, length, cell, numbers + row * dense + role - 1);
      } else if (role == 0) {
        labels[row] = text[cell] - '0';
        good = length == 1 && labels[row] <= 1;
      }
    }
    if (good && column == width) continue;
    odd[2 * odd_count] = line;
    odd[2 * odd_count + 1] = begin;
    odd_lines[odd_count++] = row;
  }
  *ascii = marks.ascii();
  return odd_count;
}

// The keys of cells that begin and end at some places of a text of `size` bytes, and their checks; null for none.
extern "C" void CellKeys(const uint8_t *text, int64_t size, const int64_t *starts, const int64_t *ends, int64_t count,
                         const uint64_t *seed, uint64_t *keys, uint32_t *checks) {
  for (int64_t i = 0; i < count; ++i) {
    keys[i] = Key(text + starts[i], ends[i] - starts[i], size - starts[i], seed, checks, i);
  }
}

// The same of cells one behind the other, the first of which begins at offsets[0]; offsets are 4 or 8 bytes wide.
extern "C" void OffsetKeys(const uint8_t *text, int64_t size, const void *offsets, int32_t wide, int64_t count,
                           const uint64_t *seed, uint64_t *keys, uint32_t *checks) {
  const int32_t *narrow = static_cast<const int32_t *>(offsets);
  const int64_t *others = static_cast<const int64_t *>(offsets);
  int64_t start = wide ? others[0] : narrow[0];
  for (int64_t i = 0; i < count; ++i) {
    const int64_t end = wide ? others[i + 1] : narrow[i + 1];
    keys[i] = Key(text + start, end - start, size - start, seed, checks, i);
    start = end;
  }
}

// The numbers of such cells; `wrong` takes which hold none, and of these there are as many as is returned. A sign of 0
// for thousands is none.
extern "C" int64_t CellNumbers(const uint8_t *text, const int64_t *starts, const int64_t *ends, int64_t count,
                               int32_t decimal, int32_t thousands, float *numbers, uint8_t *wrong) {
  int64_t odd = 0;
  for (int64_t i = 0; i < count; ++i) {
    const uint8_t *cell = text + starts[i];
    const int64_t size = ends[i] - starts[i];
    const bool good = size == 0 || (decimal == '.' && !thousands)
                          ? Number(cell, size, starts[i], numbers + i)
                          : WrittenNumber(cell, size, static_cast<char>(decimal), static_cast<char>(thousands),
                                          numbers + i);
    wrong[i] = !good;
    odd += !good;
  }
  return odd;
}
