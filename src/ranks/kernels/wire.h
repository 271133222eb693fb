// Values as they travel: float32, or rounded to 16 bits, to the nearest.

#ifndef DLRM_RANKS_WIRE_H_
#define DLRM_RANKS_WIRE_H_

#include <cstdint>
#include <cstring>

namespace {

enum Wire { kFloat32, kBfloat16, kFloat16 };

inline int64_t BytesOf(Wire wire) { return wire == kFloat32 ? 4 : 2; }

inline uint16_t ToBfloat16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>(bits >> 16 | 0x40);  // not a number
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline float OfBfloat16(uint16_t half) {
  const uint32_t bits = uint32_t{half} << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

// Writes values as they travel; `to` and `from` must not overlap.
inline void Pack(Wire wire, const float *from, int64_t count, char *to) {
  if (wire == kFloat32) {
    std::memcpy(to, from, count * 4);
  } else if (wire == kBfloat16) {
    uint16_t *halves = reinterpret_cast<uint16_t *>(to);
    for (int64_t i = 0; i < count; ++i) halves[i] = ToBfloat16(from[i]);
  } else {
    _Float16 *halves = reinterpret_cast<_Float16 *>(to);
    for (int64_t i = 0; i < count; ++i) halves[i] = static_cast<_Float16>(from[i]);
  }
}

// The other way.
inline void Unpack(Wire wire, const char *from, int64_t count, float *to) {
  if (wire == kFloat32) {
    std::memcpy(to, from, count * 4);
  } else if (wire == kBfloat16) {
    const uint16_t *halves = reinterpret_cast<const uint16_t *>(from);
    for (int64_t i = 0; i < count; ++i) to[i] = OfBfloat16(halves[i]);
  } else {
    const _Float16 *halves = reinterpret_cast<const _Float16 *>(from);
    for (int64_t i = 0; i < count; ++i) to[i] = static_cast<float>(halves[i]);
  }
}

// Values as they are behind the way, in place.
inline void Round(Wire wire, float *values, int64_t count) {
  char packed[512];
  for (int64_t i = 0; wire != kFloat32 && i < count; i += 256) {
    const int64_t some = count - i < 256 ? count - i : 256;
    Pack(wire, values + i, some, packed);
    Unpack(wire, packed, some, values + i);
  }
}

}  // namespace

#endif  // DLRM_RANKS_WIRE_H_
