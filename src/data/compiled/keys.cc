// Keys counted, merged and looked up, for src/data/key_tables.py, which does the same by pandas and says what is what.

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

  std::vector<Entry> Found() const {
    std::vector<Entry> found;
    found.reserve(used_);
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

struct KeyAndCheck {
  uint64_t key;
  uint32_t check;
};

uint64_t KeyOf(uint64_t key) { return key; }
template <class Entry>
uint64_t KeyOf(const Entry &entry) { return entry.key; }

// Sorts by rising keys, a byte after the other from the last one on.
template <class Entry>
void SortByKey(std::vector<Entry> *entries) {
  std::vector<Entry> other(entries->size());
  std::vector<uint32_t> counts(8 * 256);
  for (const Entry &entry : *entries) {
    for (int byte = 0; byte < 8; ++byte) ++counts[byte * 256 + (KeyOf(entry) >> 8 * byte & 0xFF)];
  }
  for (int byte = 0; byte < 8; ++byte) {
    uint32_t *of_byte = &counts[byte * 256], sum = 0;
    if (std::count(of_byte, of_byte + 256, 0u) == 255) continue;  // the same byte everywhere
    for (int i = 0; i < 256; ++i) {
      const uint32_t own = of_byte[i];
      of_byte[i] = sum;
      sum += own;
    }
    for (const Entry &entry : *entries) other[of_byte[KeyOf(entry) >> 8 * byte & 0xFF]++] = entry;
    entries->swap(other);
  }
}

// Puts two runs of rising keys together behind `out`; returns the end. The choice is by arithmetic, since a branch would
// be foretold wrongly every other time.
template <class Entry>
Entry *Merge(const Entry *a, const Entry *a_end, const Entry *b, const Entry *b_end, Entry *out) {
  while (a < a_end && b < b_end) {
    const uint64_t key_a = a->key, key_b = b->key;
    const bool from_a = key_a <= key_b, from_b = key_b <= key_a;
    out->Set(from_a ? key_a : key_b, (a->count & -uint64_t{from_a}) + (b->count & -uint64_t{from_b}),
             Joined(from_a ? a->Check() : 0, from_b ? b->Check() : 0));
    a += from_a, b += from_b, ++out;
  }
  out = std::copy(a, a_end, out);
  return std::copy(b, b_end, out);
}

template <class Entry>
int64_t Kept(const std::vector<Entry> &entries, int64_t size, uint64_t *keys, uint64_t *counts, uint32_t *checks) {
  for (int64_t i = 0; i < size; ++i) {
    keys[i] = entries[i].key;
    counts[i] = entries[i].count;
    if (checks) checks[i] = entries[i].Check();
  }
  return size;
}

template <class Entry>
int64_t MergeAll(uint64_t *keys, uint64_t *counts, uint32_t *checks, const int64_t *bounds, int64_t runs) {
  std::vector<Entry> found(bounds[runs]), other(bounds[runs]);
  for (int64_t i = 0; i < bounds[runs]; ++i) found[i].Set(keys[i], counts[i], checks ? checks[i] : 0);
  std::vector<int64_t> ends(bounds, bounds + runs + 1);
  while (ends.size() > 2) {  // neighbours in pairs, the last one may be alone
    std::vector<int64_t> next{0};
    Entry *out = other.data();
    for (size_t i = 0; i + 1 < ends.size(); i += 2) {
      const Entry *a = &found[0] + ends[i], *b = &found[0] + ends[i + 1];
      out = Merge(a, b, b, i + 2 < ends.size() ? &found[0] + ends[i + 2] : b, out);
      next.push_back(out - other.data());
    }
    found.swap(other);
    ends = next;
  }
  return Kept(found, ends.back(), keys, counts, checks);
}

// Of keys that are sorted, or of such with their checks, behind what `found` holds.
template <class Entry, class Key>
void CountSorted(const std::vector<Key> &sorted, uint32_t (*check_of)(const Key &), std::vector<Entry> *found) {
  for (size_t i = 0; i < sorted.size();) {
    uint64_t count = 0;
    uint32_t check = 0;
    const uint64_t key = KeyOf(sorted[i]);
    for (; i < sorted.size() && KeyOf(sorted[i]) == key; ++i, ++count) check = Joined(check, check_of(sorted[i]));
    found->emplace_back();
    found->back().Set(key, count, check);
  }
}

// Few different keys are counted in a small table, the rest by sorting them.
template <class Entry, class Key>
int64_t CountAll(const uint64_t *keys, const uint32_t *checks, int64_t size, Key (*key_at)(const uint64_t *,
                 const uint32_t *, int64_t), uint32_t (*check_of)(const Key &), uint64_t *found_keys,
                 uint64_t *found_counts, uint32_t *found_checks) {
  Counter<Entry> counter;
  const int64_t taken = counter.Add(keys, checks, size);
  std::vector<Entry> found = counter.Found(), merged;
  SortByKey(&found);
  if (taken == size) return Kept(found, found.size(), found_keys, found_counts, found_checks);
  std::vector<Key> rest(size - taken);
  for (int64_t i = taken; i < size; ++i) rest[i - taken] = key_at(keys, checks, i);
  SortByKey(&rest);
  std::vector<Entry> others;
  others.reserve(rest.size());
  CountSorted(rest, check_of, &others);
  merged.resize(found.size() + others.size());
  const Entry *end = Merge(found.data(), found.data() + found.size(), others.data(), others.data() + others.size(),
                           merged.data());
  return Kept(merged, end - merged.data(), found_keys, found_counts, found_checks);
}

uint64_t KeyAt(const uint64_t *keys, const uint32_t *, int64_t i) { return keys[i]; }
uint32_t NoCheck(const uint64_t &) { return 0; }
KeyAndCheck KeyAndCheckAt(const uint64_t *keys, const uint32_t *checks, int64_t i) { return {keys[i], checks[i]}; }
uint32_t CheckOf(const KeyAndCheck &entry) { return entry.check; }

}  // namespace

// Counts keys. `checks` may be null, and then so is `found_checks`; the found arrays have room for all keys.
// Returns how many different ones there are, which are found by rising keys.
extern "C" int64_t CountKeys(const uint64_t *keys, const uint32_t *checks, int64_t size, uint64_t *found_keys,
                             uint64_t *found_counts, uint32_t *found_checks) {
  if (checks) {
    return CountAll<Checked>(keys, checks, size, KeyAndCheckAt, CheckOf, found_keys, found_counts, found_checks);
  }
  return CountAll<Plain>(keys, checks, size, KeyAt, NoCheck, found_keys, found_counts, found_checks);
}

// Merges runs of rising keys that stand behind each other, run i from bounds[i] to bounds[i + 1], in place.
// Returns how many different keys there are. `checks` may be null.
extern "C" int64_t MergeRuns(uint64_t *keys, uint64_t *counts, uint32_t *checks, const int64_t *bounds, int64_t runs) {
  return checks ? MergeAll<Checked>(keys, counts, checks, bounds, runs)
                : MergeAll<Plain>(keys, counts, checks, bounds, runs);
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
