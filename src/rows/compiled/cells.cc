// Finds the cells of text whose rows are more than lines: cells between quotes, in which separators and line ends may
// stand (RFC 4180), and lines that are comments. src/rows/cells/finding.py does the same without a compiler, and says
// what the rules are.

#include <cstdint>
#include <cstring>

namespace {

constexpr int64_t kLongestQuoted = 1 << 20;
constexpr int32_t kControl = -1, kBehindQuote = -2, kNotClosed = -3;

struct Rules {
  const uint8_t *separator;
  int64_t width;           // of the separator
  uint8_t quote, comment;  // 0 for none
};

// Reads one cell after the other. Where the text ends before it is known what a cell is, and more may follow, `open`.
class Reader {
 public:
  Reader(uint8_t *text, int64_t size, bool last, Rules rules) : text_(text), size_(size), last_(last), rules_(rules) {}

  // From `place` on; leaves it behind what ends the cell, which is [start, end).
  void Next() {
    start = place;
    ends_row = false;
    if (rules_.quote && place < size_ && text_[place] == rules_.quote) {
      Quoted();
    } else {
      Bare();
    }
  }

  int64_t place = 0, line = 0, start = 0, end = 0;
  int32_t odd = 0;
  bool ends_row = false, open = false;

  // Passes over the rest of a line.
  void SkipLine() {
    const void *found = place < size_ ? std::memchr(text_ + place, '\n', size_ - place) : nullptr;
    if (!found && !last_) {
      open = true;
      return;
    }
    place = found ? static_cast<const uint8_t *>(found) - text_ + 1 : size_;
    ++line;
    ends_row = true;
  }

 private:
  void Bare() {
    while (place < size_ && text_[place] != '\n' && !Separates(place)) {
      if (text_[place] < '\t') odd = odd ? odd : kControl;
      ++place;
    }
    if (place == size_ && !last_) {
      open = true;
      return;
    }
    end = place;
    ends_row = place == size_ || text_[place] == '\n';
    if (ends_row && end > start && text_[end - 1] == '\r') --end;
    line += ends_row;
    PassMark();
  }

  bool Separates(int64_t at) const {
    if (text_[at] != rules_.separator[0]) return false;
    return rules_.width == 1 ||
           (at + rules_.width <= size_ && !std::memcmp(text_ + at, rules_.separator, rules_.width));
  }

  // Passes over what ends a cell.
  void PassMark() {
    if (place < size_) place += ends_row ? 1 : rules_.width;
  }

  void Quoted() {
    int64_t from = place + 1, lines = 0;
    bool doubled = false, control = false;
    for (;; ++from) {
      if (from - place > kLongestQuoted || (from == size_ && last_)) {
        odd = kNotClosed;  // the line is no row; what follows may be
        return SkipLine();
      }
      if (from == size_) {
        open = true;
        return;
      }
      if (text_[from] == rules_.quote) {
        if (from + 1 == size_ && !last_) {
          open = true;
          return;
        }
        if (from + 1 == size_ || text_[from + 1] != rules_.quote) break;
        doubled = true;
        ++from;
      }
      lines += text_[from] == '\n';
      control = control || text_[from] < '\t';
    }
    const int64_t first = place + 1, close = from;
    place = close + 1;
    const bool returns = place + 1 < size_ && text_[place] == '\r' && text_[place + 1] == '\n';
    if (place + rules_.width >= size_ && !last_) {  // what follows is not known yet
      open = true;
      return;
    }
    place += returns || (last_ && place + 1 == size_ && text_[place] == '\r');
    line += lines;
    if (place < size_ && text_[place] != '\n' && !Separates(place)) {
      odd = kBehindQuote;
      return SkipLine();
    }
    if (control) odd = odd ? odd : kControl;
    ends_row = place == size_ || text_[place] == '\n';
    line += ends_row;
    PassMark();
    start = first;
    end = doubled ? Undoubled(first, close) : close;
  }

  // Moves a cell together so that each pair of quotes is one; returns its end.
  int64_t Undoubled(int64_t first, int64_t close) {
    int64_t to = first;
    for (int64_t from = first; from < close; ++from) {
      text_[to++] = text_[from];
      from += text_[from] == rules_.quote;
    }
    return to;
  }

  uint8_t *text_;
  int64_t size_;
  bool last_;
  Rules rules_;
};

}  // namespace

// Args:
//   text, size: rows, of which the last one may go on behind the text unless it is the last text; pairs of quotes within
//     a cell become one in place.
//   separator, separator_width: between cells, and its bytes.
//   signs: that of quotes and that of comments.
//   slots: of each column of the file: -1 unused, else where its cells go; `width` of them.
//   most: rows that there may be.
//   starts, ends [slots, most], begins, lines [most]: take the cells' places, where each row begins, and the number of
//     line ends before it.
//   counts [most]: takes how many cells a row has, or what is wrong with it, below 0.
//   rest: takes where the first row begins that is not whole, and the number of line ends before it.
// Returns how many rows there are.
extern "C" int64_t FindCells(uint8_t *text, int64_t size, int32_t last, const uint8_t *separator,
                             int32_t separator_width, const uint8_t *signs, const int32_t *slots, int32_t width,
                             int64_t most, int64_t *starts, int64_t *ends, int64_t *begins, int64_t *lines,
                             int32_t *counts, int64_t *rest) {
  const Rules rules{separator, separator_width, signs[0], signs[1]};
  Reader reader(text, size, last != 0, rules);
  int64_t rows = 0;
  rest[0] = rest[1] = 0;
  while (reader.place < size && rows < most) {
    const int64_t begin = reader.place, line = reader.line;
    if (rules.comment && text[begin] == rules.comment) {
      reader.SkipLine();
      if (reader.open) break;
      rest[0] = reader.place, rest[1] = reader.line;
      continue;
    }
    int32_t count = 0;
    reader.odd = 0;
    do {
      reader.Next();
      if (count < width && slots[count] >= 0) {
        starts[slots[count] * most + rows] = reader.start;
        ends[slots[count] * most + rows] = reader.end;
      }
      ++count;
    } while (!reader.ends_row && !reader.open);
    if (reader.open) break;
    begins[rows] = begin, lines[rows] = line, counts[rows] = reader.odd ? reader.odd : count;
    ++rows;
    rest[0] = reader.place, rest[1] = reader.line;
  }
  return rows;
}
