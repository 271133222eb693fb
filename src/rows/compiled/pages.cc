// Reads the pages of a Parquet file's columns, which hold neither lists nor structs, for src/rows/cells/pages.py.
//
// A page is what stands between its header and the next one, unpacked: levels, one bit a row, which say whether it has a
// value; then the values, one behind the other, or their numbers among those of the column's dictionary. Levels and
// numbers come in runs: one number some times, or some numbers, packed bit by bit. All is checked, for files may be
// damaged: what returns a count returns -1 for a page that does not hold what it says.
// https://parquet.apache.org/docs/file-format/data-pages/encodings/

#include <cstdint>
#include <cstring>

namespace {

constexpr int kMostNested = 16;  // structs within each other, in a header

// A cursor over the bytes of a header, in Thrift's compact form; it stays at the end once that is passed.
struct Header {
  const uint8_t *at, *end;
  bool odd = false;

  uint8_t Byte() {
    if (at < end) return *at++;
    odd = true;
    return 0;
  }

  uint64_t Number() {
    uint64_t found = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const uint8_t byte = Byte();
      found |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (!(byte & 0x80)) return found;
    }
    odd = true;
    return 0;
  }

  int64_t Signed() {
    const uint64_t found = Number();
    return static_cast<int64_t>(found >> 1) ^ -static_cast<int64_t>(found & 1);
  }

  void Pass(uint64_t bytes) {
    if (bytes > static_cast<uint64_t>(end - at)) odd = true, bytes = 0;
    at += bytes;
  }

  // Calls take(number, type) for each field of a struct; what it does not take, it must skip.
  template <class Take>
  void Struct(const Take &take) {
    for (int64_t number = 0; !odd;) {
      const uint8_t byte = Byte();
      if (!byte || odd) return;
      number = byte >> 4 ? number + (byte >> 4) : Signed();
      take(number, byte & 0xF);
    }
  }

  void Skip(int type, int nested) {
    if (nested > kMostNested) odd = true;
    if (odd) return;
    if (type == 1 || type == 2) return;  // truth, which its type tells
    if (type == 3) return Pass(1);
    if (type >= 4 && type <= 6) return static_cast<void>(Number());
    if (type == 7) return Pass(8);
    if (type == 8) return Pass(Number());
    if (type == 12) return Struct([&](int64_t, int inner) { Skip(inner, nested + 1); });
    odd = true;  // lists and maps, of which a page's header has none
  }
};

// Numbers in runs.
struct Runs {
  const uint8_t *at, *end;
  int64_t left;     // numbers of this run
  int64_t bit;      // of the next packed number, from `at`
  int32_t width;    // bits of a number
  int32_t packed;   // whether this run is
  uint32_t number;  // of a run that is not

  bool Next() {
    if (packed) at += (bit + 7) / 8;
    bit = 0;
    uint64_t head = 0;
    for (int shift = 0;; shift += 7) {
      if (at >= end || shift > 28) return false;
      head |= static_cast<uint64_t>(*at & 0x7F) << shift;
      if (!(*at++ & 0x80)) break;
    }
    packed = static_cast<int32_t>(head & 1);
    if (packed) {
      left = static_cast<int64_t>(head >> 1) * 8;
      // The last run may lack the bytes of numbers that only fill its last eight.
      const int64_t whole = width ? (end - at) * 8 / width : left;
      left = left < whole ? left : whole;
      return left > 0;
    }
    left = static_cast<int64_t>(head >> 1);
    const int bytes = (width + 7) / 8;
    if (end - at < bytes) return false;
    number = 0;
    std::memcpy(&number, at, bytes);
    at += bytes;
    return left > 0 && !(static_cast<uint64_t>(number) >> width);
  }

  uint64_t Word(int64_t from) const {
    uint64_t word = 0;
    const uint8_t *place = at + (from >> 3);
    if (end - place >= 8) {
      std::memcpy(&word, place, 8);
    } else {
      std::memcpy(&word, place, end - place);
    }
    return word >> (from & 7);
  }

  // Puts the next numbers; returns whether there are so many.
  template <typename To>
  bool Read(int64_t count, To *to) {
    const uint64_t mask = (uint64_t{1} << width) - 1;
    while (count > 0) {
      if (!left && !Next()) return false;
      const int64_t own = left < count ? left : count;
      if (!packed) {
        for (int64_t i = 0; i < own; ++i) to[i] = static_cast<To>(number);
      } else {
        const int64_t safe = (end - at - 8) * 8 - bit;  // bits from which 8 bytes may be read at once
        const int64_t quick = width == 0 || safe <= 0 ? 0 : own < safe / width ? own : safe / width;
        for (int64_t i = 0; i < quick; ++i) {
          const int64_t from = bit + i * width;
          uint64_t word;
          std::memcpy(&word, at + (from >> 3), 8);
          to[i] = static_cast<To>(word >> (from & 7) & mask);
        }
        for (int64_t i = quick; i < own; ++i) to[i] = static_cast<To>(Word(bit + i * width) & mask);
        bit += own * width;
      }
      left -= own, count -= own, to += own;
    }
    return true;
  }
};

// What is left of a page, as pages.py keeps it.
struct Page {
  Runs levels, places;
  const uint8_t *at, *end;  // of values that stand there themselves
  int64_t left;             // rows
  int32_t has_levels;
};

constexpr int64_t kTile = 4096;

// The levels of some rows, a byte and a bit each: how many of the rows have a value, -1 where the levels end.
int64_t ReadLevels(Page *page, int64_t rows, uint8_t *there, uint8_t *bits) {
  std::memset(there, 0, (rows + 7) / 8 * 8);
  if (!page->levels.Read(rows, there)) return -1;
  int64_t values = 0;
  for (int64_t i = 0; i < (rows + 7) / 8; ++i) {
    uint64_t eight;
    std::memcpy(&eight, there + 8 * i, 8);
    bits[i] = static_cast<uint8_t>(eight * 0x0102040810204080 >> 56);
    values += static_cast<int64_t>(eight * 0x0101010101010101 >> 56);
  }
  return values;
}

// Puts values that stand one behind the other in the first places of `to` where they belong, 0 elsewhere.
template <typename Value>
void Spread(const uint8_t *there, int64_t rows, int64_t values, Value *to) {
  for (int64_t i = rows - 1; i >= 0; --i) {
    const Value value = values > 0 ? to[values - 1] : Value{};
    to[i] = there[i] ? value : Value{};
    values -= there[i];
  }
}

// Calls read(from, rows, there) for tiles of rows, which returns whether it could; `there` is null where all rows have
// values. Returns how many rows have none, and -1 where anything is wrong.
template <class Read>
int64_t ByTiles(Page *page, int64_t rows, uint8_t *bits, const Read &read) {
  if (rows < 0 || rows > page->left) return -1;
  uint8_t there[kTile + 8];
  int64_t missing = 0;
  for (int64_t from = 0; from < rows; from += kTile) {
    const int64_t own = rows - from < kTile ? rows - from : kTile;
    int64_t values = own;
    if (page->has_levels) values = ReadLevels(page, own, there, bits + from / 8);
    if (values < 0 || !read(from, own, values, values < own ? there : nullptr)) return -1;
    missing += own - values;
  }
  page->left -= rows;
  return missing;
}

bool PlacesOf(Page *page, int64_t rows, int64_t values, const uint8_t *there, int64_t most, uint32_t *to) {
  if (!page->places.Read(values, to)) return false;
  uint32_t largest = 0;
  for (int64_t i = 0; i < values; ++i) largest = largest < to[i] ? to[i] : largest;
  if (values && static_cast<int64_t>(largest) >= most) return false;
  if (there) Spread(there, rows, values, to);
  return true;
}

template <typename Value>
int64_t FixedOf(Page *page, int64_t rows, const Value *dictionary, int64_t most, uint8_t *bits, Value *to) {
  uint32_t places[kTile];
  return ByTiles(page, rows, bits, [&](int64_t from, int64_t own, int64_t values, const uint8_t *there) {
    Value *here = to + from;
    if (!dictionary) {
      const int64_t bytes = values * static_cast<int64_t>(sizeof(Value));
      if (page->end - page->at < bytes) return false;
      std::memcpy(here, page->at, bytes);
      page->at += bytes;
      if (there) Spread(there, own, values, here);
      return true;
    }
    if (!PlacesOf(page, own, values, nullptr, most, places)) return false;
    for (int64_t i = 0; i < values; ++i) here[i] = dictionary[places[i]];
    if (there) Spread(there, own, values, here);
    return true;
  });
}

}  // namespace

// What the header of a page says, whose bytes begin at `from`: its type, its bytes unpacked and packed, its values, how
// they are kept, how its levels are, the bytes of levels of lists and of ours where they stand before what is packed,
// and whether it is packed; -1 for what it does not say. Returns how many bytes the header has, -1 for none.
extern "C" int64_t PageHeader(const uint8_t *from, int64_t size, int64_t *found) {
  Header header{from, from + size};
  for (int i = 0; i < 9; ++i) found[i] = -1;
  header.Struct([&](int64_t number, int type) {
    const bool is_number = type == 5;
    if (number >= 1 && number <= 3 && is_number) {
      found[number - 1] = header.Signed();
    } else if ((number == 5 || number == 7) && type == 12) {  // a page of the first kind, or a dictionary
      header.Struct([&](int64_t inner, int kind) {
        if (inner >= 1 && inner <= 3 && kind == 5) {
          found[2 + inner] = header.Signed();
        } else {
          header.Skip(kind, 2);
        }
      });
    } else if (number == 8 && type == 12) {  // a page of the second kind
      header.Struct([&](int64_t inner, int kind) {
        if (inner == 1 && kind == 5) return static_cast<void>(found[3] = header.Signed());
        if (inner == 4 && kind == 5) return static_cast<void>(found[4] = header.Signed());
        if (inner == 5 && kind == 5) return static_cast<void>(found[7] = header.Signed());
        if (inner == 6 && kind == 5) return static_cast<void>(found[6] = header.Signed());
        if (inner == 7 && (kind == 1 || kind == 2)) return static_cast<void>(found[8] = kind == 1);
        header.Skip(kind, 2);
      });
    } else {
      header.Skip(type, 1);
    }
  });
  return header.odd ? -1 : header.at - from;
}

extern "C" int64_t PageBytes() { return sizeof(Page); }

// Begins a page of so many rows, of its levels, if it has any, and its values, or their numbers. Returns whether it can.
extern "C" int32_t OpenPage(Page *page, const uint8_t *levels, int64_t level_bytes, const uint8_t *values, int64_t bytes,
                            int64_t rows, int32_t has_levels, int32_t has_places) {
  std::memset(page, 0, sizeof *page);
  page->levels.at = levels, page->levels.end = levels + level_bytes, page->levels.width = 1;
  page->at = values, page->end = values + bytes;
  page->left = rows, page->has_levels = has_levels;
  if (!has_places) return 1;
  page->places.at = values + 1, page->places.end = values + bytes;
  if (bytes < 1) {  // as where no row has a value
    page->places.at = values;
    return 1;
  }
  page->places.width = values[0];
  return values[0] <= 32;
}

// The places of the next rows' values among `most`, 0 for a row without one, and a bit for each row with one.
extern "C" int64_t ReadPlaces(Page *page, int64_t rows, uint8_t *bits, int64_t most, uint32_t *to) {
  return ByTiles(page, rows, bits, [&](int64_t from, int64_t own, int64_t values, const uint8_t *there) {
    return PlacesOf(page, own, values, there, most, to + from);
  });
}

// The next rows' values of 4 or 8 bytes, 0 for none, where there is a dictionary of so many by their places in it.
extern "C" int64_t ReadFixed(Page *page, int64_t rows, uint8_t *bits, int32_t bytes, const void *dictionary,
                             int64_t most, void *to) {
  if (bytes == 4) {
    return FixedOf(page, rows, static_cast<const uint32_t *>(dictionary), most, bits, static_cast<uint32_t *>(to));
  }
  return FixedOf(page, rows, static_cast<const uint64_t *>(dictionary), most, bits, static_cast<uint64_t *>(to));
}

// The next rows' texts one behind the other, and where each begins, and the last one ends. `text` has room for all that
// the page has left.
extern "C" int64_t ReadTexts(Page *page, int64_t rows, uint8_t *bits, int32_t *offsets, uint8_t *text) {
  int64_t done = 0;
  offsets[0] = 0;
  return ByTiles(page, rows, bits, [&](int64_t from, int64_t own, int64_t, const uint8_t *there) {
    for (int64_t i = 0; i < own; ++i) {
      if (!there || there[i]) {
        uint32_t size;
        if (page->end - page->at < 4) return false;
        std::memcpy(&size, page->at, 4);
        page->at += 4;
        if (size > static_cast<uint64_t>(page->end - page->at)) return false;
        if (size == 8) {  // as many texts are, so that it is no call
          std::memcpy(text + done, page->at, 8);
        } else {
          std::memcpy(text + done, page->at, size);
        }
        page->at += size, done += size;
      }
      offsets[from + i + 1] = static_cast<int32_t>(done);
    }
    return true;
  });
}
