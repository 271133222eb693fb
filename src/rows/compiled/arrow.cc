// Reads the buffers of Arrow's arrays, for src/rows/cells/buffers.py, which does the same without a compiler.

#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace {

// A value of a type whose name NumPy gives as a letter and its bytes.
template <typename Work>
bool WithType(char kind, int32_t bytes, const Work &work) {
  if (kind == 'i' && bytes == 1) return work(int8_t{}), true;
  if (kind == 'i' && bytes == 2) return work(int16_t{}), true;
  if (kind == 'i' && bytes == 4) return work(int32_t{}), true;
  if (kind == 'i' && bytes == 8) return work(int64_t{}), true;
  if (kind == 'u' && bytes == 1) return work(uint8_t{}), true;
  if (kind == 'u' && bytes == 2) return work(uint16_t{}), true;
  if (kind == 'u' && bytes == 4) return work(uint32_t{}), true;
  if (kind == 'u' && bytes == 8) return work(uint64_t{}), true;
  if (kind == 'f' && bytes == 4) return work(float{}), true;
  if (kind == 'f' && bytes == 8) return work(double{}), true;
  return false;
}

// Which values are there: a bit each, from `offset` on; all are where there are no bits.
struct Valid {
  const uint8_t *bits;
  int64_t offset;
  bool operator()(int64_t i) const { return !bits || bits[(offset + i) >> 3] >> ((offset + i) & 7) & 1; }
};

#ifdef __cpp_lib_to_chars
// A float as Python writes it, but whole numbers below 2^53 without a point. Returns the end.
char *WriteFloat(double value, char *to) {
  char text[40];
  const char *end = std::to_chars(text, text + sizeof text, std::fabs(value), std::chars_format::scientific).ptr;
  const char *mark = static_cast<const char *>(std::memchr(text, 'e', end - text));
  int exponent = 0;
  std::from_chars(mark + 1 + (mark[1] == '+'), end, exponent);
  char digits[24];
  int count = 0;
  for (const char *from = text; from < mark; ++from) {
    if (*from != '.') digits[count++] = *from;
  }
  const bool whole = exponent >= count - 1 && std::fabs(value) < 9007199254740992.0;
  if (value < 0) *to++ = '-';
  if (exponent < -4 || exponent >= 16) {
    *to++ = digits[0];
    if (count > 1) *to++ = '.';
    std::memcpy(to, digits + 1, count - 1);
    to += count - 1;
    std::memcpy(to, mark, end - mark);
    return to + (end - mark);
  }
  if (exponent < 0) {
    *to++ = '0', *to++ = '.';
    for (int i = -1; i > exponent; --i) *to++ = '0';
    std::memcpy(to, digits, count);
    return to + count;
  }
  for (int i = 0; i < count || i <= exponent; ++i) {
    if (i == exponent + 1) *to++ = '.';
    *to++ = i < count ? digits[i] : '0';
  }
  if (count <= exponent + 1 && !whole) *to++ = '.', *to++ = '0';
  return to;
}

char *Write(double value, char *to) {
  if (std::isnan(value)) return to;
  if (!std::isinf(value)) return WriteFloat(value, to);
  if (value < 0) *to++ = '-';
  std::memcpy(to, "inf", 3);
  return to + 3;
}

// The shortest digits that give the float, which are those of another double.
char *Write(float value, char *to) {
  if (!std::isfinite(value)) return Write(static_cast<double>(value), to);
  char text[40];
  double nearest = 0;
  std::from_chars(text, std::to_chars(text, text + sizeof text, value, std::chars_format::scientific).ptr, nearest);
  return WriteFloat(nearest, to);
}

template <typename Whole>
char *Write(Whole value, char *to) {
  return std::to_chars(to, to + 32, value).ptr;
}
#endif

}  // namespace

// The numbers of values as floats, nan where there is none; `wrong` takes which are beyond a float, and get 0. Returns
// how many these are, below 0 for a type that is none of numbers.
extern "C" int64_t Floats(int32_t kind, int32_t bytes, const void *values, const uint8_t *bits, int64_t offset,
                          int64_t count, float *numbers, uint8_t *wrong) {
  constexpr double kLargest = std::numeric_limits<float>::max();
  const Valid valid{bits, offset};
  int64_t odd = 0;
  const bool known = WithType(static_cast<char>(kind), bytes, [&](auto one) {
    using Value = decltype(one);
    const Value *from = static_cast<const Value *>(values);
    constexpr int64_t kTile = 256;
    uint8_t there[kTile];
    std::memset(there, 1, sizeof there);
    for (int64_t begin = 0; begin < count; begin += kTile) {
      const int64_t end = begin + kTile < count ? begin + kTile : count;
      for (int64_t i = begin; bits && i < end; ++i) there[i - begin] = valid(i);
      for (int64_t i = begin; i < end; ++i) {
        const double value = static_cast<double>(from[i]);
        const bool none = !there[i - begin] || value != value, beyond = std::fabs(value) > kLargest && !none;
        const float number = beyond ? 0.0f : static_cast<float>(value) + 0.0f;  // 0 of -0, which has other bits
        numbers[i] = none ? std::numeric_limits<float>::quiet_NaN() : number;
        wrong[i] = beyond;
      }
      for (int64_t i = begin; i < end; ++i) odd += wrong[i];
    }
  });
  return known ? odd : -1;
}

// The texts of values, one behind the other, nothing where there is none: up to 32 bytes each. `ends` takes where each
// ends. Returns how many bytes there are, below 0 where this can't be done.
extern "C" int64_t Texts(int32_t kind, int32_t bytes, const void *values, const uint8_t *bits, int64_t offset,
                         int64_t count, char *text, int64_t *ends) {
#ifdef __cpp_lib_to_chars
  const Valid valid{bits, offset};
  char *to = text;
  const bool known = WithType(static_cast<char>(kind), bytes, [&](auto one) {
    const auto *from = static_cast<const decltype(one) *>(values);
    for (int64_t i = 0; i < count; ++i) {
      if (valid(i)) to = Write(from[i], to);
      ends[i] = to - text;
    }
  });
  return known ? to - text : -1;
#else
  return -1;
#endif
}

// The places of cells among `most` values, `most` for a missing one. Returns whether the places' type is known, and all
// lie within.
extern "C" int32_t Places(int32_t kind, int32_t bytes, const void *places, const uint8_t *bits, int64_t offset,
                          int64_t count, int64_t most, int32_t *found) {
  const Valid valid{bits, offset};
  uint64_t largest = 0;
  const bool known = WithType(static_cast<char>(kind), bytes, [&](auto one) {
    const auto *from = static_cast<const decltype(one) *>(places);
    for (int64_t i = 0; i < count; ++i) {
      const uint64_t place = valid(i) ? static_cast<uint64_t>(from[i]) : static_cast<uint64_t>(most);
      largest = largest < place ? place : largest;
      found[i] = static_cast<int32_t>(place);
    }
  });
  return known && largest <= static_cast<uint64_t>(most);
}

// Adds to `counts` how often each place occurs; `order` takes those that do, as they come. Returns how many these are.
extern "C" int64_t CountPlaces(const int32_t *places, int64_t count, int64_t *counts, int32_t *order) {
  int64_t distinct = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (!counts[places[i]]++) order[distinct++] = places[i];
  }
  return distinct;
}

// What stands at the places, each `stride` values behind the one before.
extern "C" void PutPlaces(const int32_t *places, int64_t count, const int32_t *values, int64_t stride, int32_t *to) {
  for (int64_t i = 0; i < count; ++i) to[i * stride] = values[places[i]];
}

// Whether all bytes are ASCII, and none a control character before the tab.
extern "C" int32_t IsPlain(const uint8_t *text, int64_t size) {
  uint8_t odd = 0;
  for (int64_t i = 0; i < size; ++i) odd |= static_cast<uint8_t>((text[i] < '\t') | (text[i] >> 7));
  return !odd;
}
