// Keys counted, merged and looked up, for key_tables.py beside it, which does the same by pandas and says what is what.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr int64_t kAhead = 16;   // keys whose slots are on their way from memory while one is looked at
constexpr int64_t kTile = 512;   // rows whose ids stay in the nearest cache until all of their fields are there
constexpr int64_t kSlotBytes = 12;  // a key, and a place of 4 bytes, 0 for a slot that is free
constexpr uint32_t kShared = 2;  // in place of the check of a key that several texts have

// A key and how often it occurs.
struct Plain {
  uint64_t key, count;
  void Set(uint64_t new_key, uint64_t new_count, uint32_t) { key = new_key, count = new_count; }
  uint32_t Check() const { return 0; }
};

// The same with its check.
struct Checked {
  uint64_t key, count;
  uint32_t check;
  void Set(uint64_t new_key, uint64_t new_count, uint32_t new_check) {
    key = new_key, count = new_count, check = new_check;
  }
  uint32_t Check() const { return check; }
};

uint64_t Mixed(uint64_t key) {
  key = (key ^ key >> 32) * 0x9E3779B97F4A7C15;
  key = (key ^ key >> 32) * 0xD6E8FEB86659FD93;
  return key ^ key >> 32;
}

// A place below `size`, by all bits of a key.
int64_t Below(uint64_t key, int64_t size) {
  return static_cast<int64_t>(static_cast<unsigned __int128>(Mixed(key)) * static_cast<uint64_t>(size) >> 64);
}

// The check of a key's texts, of those of some of them; 0 for no check.
uint32_t Joined(uint32_t one, uint32_t other) {
  if (!one || !other) return one | other;
  return one == other ? one : kShared;
}

// A hash table of what was counted. An entry with a count of 0 is free.
template <class Entry>
class Counter {
 public:
  // Counts keys until there are too many different ones; returns how many keys it took.
  int64_t Add(const uint64_t *keys, const uint32_t *checks, int64_t size) {
    for (int64_t i = 0; i < size; ++i) {
      if (used_ >= kMost) return i;
      uint64_t at = Mixed(keys[i]) & kMask;
      while (entries_[at].count && entries_[at].key != keys[i]) at = (at + 1) & kMask;
      Entry &entry = entries_[at];
      used_ += entry.count == 0;
      entry.Set(keys[i], entry.count + 1, checks ? Joined(entry.Check(), checks[i]) : 0);
    }
    return size;
  }

  // What it has counted, with room for more.
  std::vector<Entry> Found(int64_t more) const {
    std::vector<Entry> found;
    found.reserve(used_ + more);
    for (const Entry &entry : entries_) {
      if (entry.count) found.push_back(entry);
    }
    return found;
  }

 private:
  static constexpr uint64_t kMask = (1 << 14) - 1;  // so that it stays in the nearer caches
  static constexpr int64_t kMost = 1 << 13;
  std::vector<Entry> entries_ = std::vector<Entry>(kMask + 1);
  int64_t used_ = 0;
};

// Sorts by rising keys, a byte after the other from the last one on.
template <class Entry>
void SortByKey(std::vector<Entry> *entries) {
  std::vector<Entry> other(entries->size());
  std::vector<uint32_t> counts(8 * 256);
  for (const Entry &entry : *entries) {
    for (int byte = 0; byte < 8; ++byte) ++counts[byte * 256 + (entry.key >> 8 * byte & 0xFF)];
  }
  for (int byte = 0; byte < 8; ++byte) {
    uint32_t *of_byte = &counts[byte * 256], sum = 0;
    if (std::count(of_byte, of_byte + 256, 0u) == 255) continue;  // the same byte everywhere
    for (int i = 0; i < 256; ++i) {
      const uint32_t own = of_byte[i];
      of_byte[i] = sum;
      sum += own;
    }
    for (const Entry &entry : *entries) other[of_byte[entry.key >> 8 * byte & 0xFF]++] = entry;
    entries->swap(other);
  }
}

template <class Entry>
int64_t Kept(const std::vector<Entry> &entries, uint64_t *keys, uint64_t *counts, uint32_t *checks) {
  const int64_t size = entries.size();
  for (int64_t i = 0; i < size; ++i) {
    keys[i] = entries[i].key;
    counts[i] = entries[i].count;
    if (checks) checks[i] = entries[i].Check();
  }
  return size;
}

// Sorts entries, and puts those with the same key together.
template <class Entry>
void SumByKey(std::vector<Entry> *entries) {
  SortByKey(entries);
  size_t used = 0;
  for (size_t i = 0; i < entries->size(); ++used) {
    Entry sum = (*entries)[i++];
    for (; i < entries->size() && (*entries)[i].key == sum.key; ++i) {
      sum.Set(sum.key, sum.count + (*entries)[i].count, Joined(sum.Check(), (*entries)[i].Check()));
    }
    (*entries)[used] = sum;
  }
  entries->resize(used);
}

template <class Entry>
int64_t SumAll(uint64_t *keys, uint64_t *counts, uint32_t *checks, int64_t size) {
  std::vector<Entry> found(size);
  for (int64_t i = 0; i < size; ++i) found[i].Set(keys[i], counts[i], checks ? checks[i] : 0);
  SumByKey(&found);
  return Kept(found, keys, counts, checks);
}

// Few different keys are counted in a small table, the rest by sorting them.
template <class Entry>
int64_t CountAll(const uint64_t *keys, const uint32_t *checks, int64_t size, uint64_t *found_keys,
                 uint64_t *found_counts, uint32_t *found_checks) {
  Counter<Entry> counter;
  const int64_t taken = counter.Add(keys, checks, size);
  std::vector<Entry> found = counter.Found(size - taken);
  for (int64_t i = taken; i < size; ++i) {
    found.emplace_back();
    found.back().Set(keys[i], 1, checks ? checks[i] : 0);
  }
  SumByKey(&found);
  return Kept(found, found_keys, found_counts, found_checks);
}

}  // namespace

// Counts keys. `checks` may be null, and then so is `found_checks`; the found arrays have room for all keys.
// Returns how many different ones there are, which are found by rising keys.
extern "C" int64_t CountKeys(const uint64_t *keys, const uint32_t *checks, int64_t size, uint64_t *found_keys,
                             uint64_t *found_counts, uint32_t *found_checks) {
  return checks ? CountAll<Checked>(keys, checks, size, found_keys, found_counts, found_checks)
                : CountAll<Plain>(keys, checks, size, found_keys, found_counts, found_checks);
}

// Adds the counts of keys that stand there several times, in place.
// Returns how many different ones there are, which stand there by rising keys. `checks` may be null.
extern "C" int64_t SumKeys(uint64_t *keys, uint64_t *counts, uint32_t *checks, int64_t size) {
  return checks ? SumAll<Checked>(keys, counts, checks, size) : SumAll<Plain>(keys, counts, checks, size);
}

// Places of keys in a table, falling by counts, and by rising keys, in which they come, where counts are equal.
//   next: of each different count, which rise, the next place; goes on.
//   places: takes them, -1 for a count that is not among `counts`.
extern "C" void RankCounts(const int64_t *totals, int64_t size, const int64_t *counts, int64_t *next, int64_t different,
                           int64_t *places) {
  constexpr int64_t kSmall = 1 << 16;
  std::vector<int32_t> small(kSmall, -1);
  for (int64_t i = 0; i < different && counts[i] < kSmall; ++i) small[counts[i]] = static_cast<int32_t>(i);
  for (int64_t i = 0; i < size; ++i) {
    int64_t at = totals[i] < kSmall ? small[totals[i]] : std::lower_bound(counts, counts + different, totals[i]) - counts;
    if (at >= different || (at >= 0 && counts[at] != totals[i])) at = -1;
    places[i] = at < 0 ? -1 : next[at]++;
  }
}

// Fills the free slots of a table with keys, none of which comes twice, and their places from `first` on.
extern "C" void FillTable(const uint64_t *keys, int64_t size, uint32_t first, uint8_t *slots, int64_t slot_count) {
  for (int64_t i = 0; i < size; ++i) {
    if (i + kAhead < size) __builtin_prefetch(slots + kSlotBytes * Below(keys[i + kAhead], slot_count), 1);
    int64_t at = Below(keys[i], slot_count);
    uint32_t place;
    while (std::memcpy(&place, slots + kSlotBytes * at + 8, 4), place) at = at + 1 == slot_count ? 0 : at + 1;
    place = first + static_cast<uint32_t>(i);
    std::memcpy(slots + kSlotBytes * at, keys + i, 8);
    std::memcpy(slots + kSlotBytes * at + 8, &place, 4);
  }
}

// The places of keys [fields, rows], each field's in its own table of slots; 0 for those that it does not hold.
//   places: takes them, [rows, fields].
extern "C" void FindPlaces(const uint64_t *keys, int64_t fields, int64_t rows, const uint8_t *const *slots,
                           const int64_t *slot_counts, int32_t *places) {
  for (int64_t start = 0; start < rows; start += kTile) {
    const int64_t size = std::min(kTile, rows - start);
    for (int64_t field = 0; field < fields; ++field) {
      const uint64_t *wanted = keys + field * rows + start;
      const uint8_t *table = slots[field];
      const int64_t count = slot_counts[field];
      int64_t at[kTile];
      for (int64_t i = 0; i < size; ++i) at[i] = Below(wanted[i], count);
      for (int64_t i = 0; i < std::min(size, kAhead); ++i) __builtin_prefetch(table + kSlotBytes * at[i]);
      for (int64_t i = 0; i < size; ++i) {
        if (i + kAhead < size) __builtin_prefetch(table + kSlotBytes * at[i + kAhead]);
        int64_t slot = at[i];
        uint64_t key;
        int32_t place;
        for (;;) {
          std::memcpy(&key, table + kSlotBytes * slot, 8);
          std::memcpy(&place, table + kSlotBytes * slot + 8, 4);
          if (place == 0 || key == wanted[i]) break;
          slot = slot + 1 == count ? 0 : slot + 1;
        }
        places[(start + i) * fields + field] = place;
      }
    }
  }
}
