#include "scoring.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <deque>
#include <filesystem>
#include <functional>
#include <future>
#include <memory>
#include <numeric>
#include <system_error>
#include <thread>
#include <utility>

#include "delta.h"
#include "error.h"
#include "network.h"
#include "quiet.h"
#include "results.h"
#include "row_files.h"

namespace dlrm {
namespace {

// On a CPU a network takes a request in blocks of rows, so that what a layer gives stays in the caches: of at most so
// many rows, where it has one thread and where it has several.
constexpr uint64_t kLargestBlock = 256, kLargestSharedBlock = 1024;

// Threads get networks of their own where there is work for them: a network takes as long to load as so many rows to
// score, and memory; smaller blocks than the smallest are not worth a thread.
constexpr uint64_t kRowsPerNetwork = 16384, kMostNetworks = 16, kSmallestBlock = 32;

// Several threads of one network share each layer, and yield their processors while they wait for each other, to whoever
// else is there. With both of two processors for itself a graph of 0.3 MB takes longer by two threads than by one, and
// one of 2 MB a tenth to a third less time; beside other programs a small one took four times as long. So by default a
// network whose weights have less than this has one thread.
constexpr uint64_t kSharedGraphBytes = 1 << 20;

uint64_t CeilDivide(uint64_t rows, uint64_t parts) { return (rows + parts - 1) / parts; }

double Seconds(Clock::time_point from) { return std::chrono::duration<double>(Clock::now() - from).count(); }

// About what a graph has beside the tables that may be in it.
uint64_t WeightBytes(const ModelFolder &model) {
  const uint64_t bytes = std::filesystem::file_size(model.graph);
  if (model.on_host()) return bytes;
  const uint64_t rows = std::accumulate(model.table_rows.begin(), model.table_rows.end(), uint64_t{0});
  const uint64_t tables = rows * model.width * sizeof(float);
  return bytes < tables ? bytes : bytes - tables;  // which all counts where tables are narrower
}

uint64_t RequestRows(const Options &options, const ModelFolder &model) {
  if (!options.batch_size || options.batch_size == model.batch_size) return model.batch_size;
  if (!options.on_cpu()) {
    throw Error("--batch_size is " + std::to_string(options.batch_size) + ", and the model was exported for " +
                std::to_string(model.batch_size) + ", which is fixed on Ascend: export it with --export_batch_size=" +
                std::to_string(options.batch_size) + ", or leave the option away");
  }
  return options.batch_size;
}

// Scores requests of rows, block by block. Tables on the host are one for all; on a CPU the blocks of a request are then
// shared out to workers, each with a network of its own: that takes no waiting for each other at each layer, and looks
// up in parallel. (A graph that holds the tables is loaded once: Lite copies them.)
class Scorer {
 public:
  Scorer(const Options &options, const Version &version, uint64_t rows)
      : model_(version.model), rows_(RequestRows(options, model_)), block_(rows_), tables_(version.tables) {
    const ModelFolder &model = model_;
    if (!options.on_cpu()) {
      networks_.emplace_back(model, options, block_, 1);
      return;
    }
    const uint64_t most = std::min(rows, rows_);
    const unsigned processors = std::thread::hardware_concurrency();
    uint64_t workers = 1, threads = options.threads ? options.threads : std::max(1U, processors);
    if (most < kSmallestBlock) threads = 1;
    if (tables_) {
      workers = std::min({threads, kMostNetworks, CeilDivide(rows, kRowsPerNetwork), most / kSmallestBlock});
      workers = std::max<uint64_t>(workers, 1);
      threads /= workers;
    }
    // Those of a network spin while they wait, so that none has more than its share of the processors, or one.
    if (processors) threads = std::min(threads, std::max<uint64_t>(1, processors / workers));
    if (!options.threads && WeightBytes(model) < kSharedGraphBytes) threads = 1;
    // Blocks of one size, as many for each worker, so that little is filled up with zeros.
    const uint64_t blocks = CeilDivide(most, threads == 1 ? kLargestBlock : kLargestSharedBlock);
    block_ = CeilDivide(most, CeilDivide(blocks, workers) * workers);
    if (workers == 1 && threads == 1) StayOnOneProcessor();
    networks_.emplace_back(model, options, block_, threads);
    try {
      while (networks_.size() < workers) networks_.emplace_back(model, options, block_, threads);
    } catch (const std::exception &) {  // there is no memory for more, or no thread: those that there are do as well
    }
    threads_ = networks_.size() * threads;
  }

  uint64_t request_rows() const { return rows_; }
  uint64_t threads() const { return threads_; }
  double table_mb() const { return tables_ ? tables_->ResidentMb() : 0; }

  // Scores `count` rows from row `first` of a file on.
  void Score(const Rows &rows, size_t first, size_t count, float *scores) {
    std::atomic<size_t> next{0};
    const auto work = [&](Network *network) {
      try {
        for (size_t done; (done = block_ * next++) < count;) {
          ScoreBlock(rows, first + done, std::min<size_t>(block_, count - done), network, scores + done);
        }
      } catch (...) {
        next = count;  // the others end, too
        throw;
      }
    };
    std::vector<std::future<void>> others;
    try {
      for (size_t worker = 1; worker < std::min(networks_.size(), CeilDivide(count, block_)); ++worker) {
        others.push_back(std::async(std::launch::async, work, &networks_[worker]));
      }
    } catch (const std::system_error &) {  // the system starts no more threads: those that there are do all
    }
    work(&networks_[0]);
    for (auto &other : others) other.get();
  }

 private:
  // The rows may be fewer than a block, which zeros then fill up.
  void ScoreBlock(const Rows &rows, size_t first, size_t count, Network *network, float *scores) {
    Fill(network->dense(), rows.dense.data() + first * model_.dense_dim, count, model_.dense_dim);
    const int32_t *ids = rows.ids.data() + first * model_.ids;
    if (tables_) {
      auto *vectors = static_cast<float *>(network->second());
      const size_t values = model_.fields.size() * model_.width;
      tables_->Lookup(model_, ids, count, vectors);
      std::fill(vectors + count * values, vectors + block_ * values, 0.0F);
    } else {
      Fill(static_cast<int32_t *>(network->second()), ids, count, model_.ids);
    }
    const float *found = network->Run();
    std::copy(found, found + count, scores);
  }

  template <typename Value>
  void Fill(Value *to, const Value *from, size_t rows, size_t columns) const {
    std::copy(from, from + rows * columns, to);
    std::fill(to + rows * columns, to + block_ * columns, Value{0});
  }

  const ModelFolder model_;
  uint64_t rows_, block_, threads_ = 0;  // of a request and a block; of a CPU
  std::shared_ptr<const Tables> tables_;
  std::deque<Network> networks_;  // one a worker
};

// The model that scores rows, and what becomes of it while they are scored.
class Following {
 public:
  // Loads the model, and lets deltas that are there already change it: up to the last one whose vocabulary is the rows'.
  explicit Following(const Options &options)
      : followed_(options.follow), version_(Version::Load(options.model)), vocabulary_(RowFiles::Vocabulary(options.input)) {
    if (!options.follow.empty() && !version_.model.on_host()) {
      throw Error("--follow takes a model with its tables in a file: export it with --table_placement=host");
    }
    while (Step([](const Version &) {})) {
    }
  }

  const Version &version() const { return version_; }

  // Lets a delta that is there change the model, once `prepare` has been given the later one. One that is damaged is
  // told, and passed over. One of another vocabulary than the rows' waits, for the later model would take these for
  // others.
  bool Step(const std::function<void(const Version &)> &prepare) {
    const Delta *delta = followed_.Next(version_.model);
    if (!delta || (version_.model.vocabulary == vocabulary_ && delta->made[1] != vocabulary_)) return false;
    try {
      Version later = delta->Applied(version_);
      prepare(later);
      version_ = std::move(later);
      return true;
    } catch (const Error &error) {
      std::string line = error.what();
      for (char &sign : line) sign = sign == '\n' || sign == '\r' ? ' ' : sign;
      dprintf(Stderr(), "warning: the model stays as it is: %s\n", line.c_str());
      followed_.Refuse(*delta);
      return false;
    }
  }

 private:
  Followed followed_;
  Version version_;
  const std::string vocabulary_;
};

}  // namespace

void Score(const Options &options, Clock::time_point start) {
  Following following(options);
  const RowFiles files(options.input, following.version().model);
  ResultFiles results(options.output);
  const TimesFile times_file(options.output);
  // What is wrong with the first rows is told before the network is loaded, which takes far longer than to read them.
  const auto reading = Clock::now();
  Rows rows = files.Read(0);
  const double first_read_s = Seconds(reading);
  auto scorer = std::make_unique<Scorer>(options, following.version(), files.rows());
  Times times;
  times.follows = !options.follow.empty();
  times.batch_size = scorer->request_rows();
  times.rows = files.rows();
  times.load_s = Seconds(start) - first_read_s;
  if (times.follows) results.Note(following.version().model, 1);
  const auto begin = Clock::now();
  uint64_t done = 0;
  for (size_t index = 0; index < files.count(); ++index) {
    if (index) {
      rows = {};  // before there are others, so that there is memory for one file's
      rows = files.Read(index);
    }
    std::vector<float> scores(rows.count);
    for (size_t first = 0; first < rows.count; first += times.batch_size) {
      const auto found = Clock::now();
      // Each request is of one model.
      if (following.Step([&](const Version &later) { scorer = std::make_unique<Scorer>(options, later, files.rows()); })) {
        times.apply_s.push_back(Seconds(found));
        results.Note(following.version().model, done + first + 1);
      }
      const auto asked = Clock::now();
      scorer->Score(rows, first, std::min<size_t>(times.batch_size, rows.count - first), scores.data() + first);
      times.request_ms.push_back(1000 * Seconds(asked));
      if (times.request_ms.size() == 1) times.first_score_s = Seconds(start);
    }
    results.Write(files.name(index), scores);
    done += rows.count;
  }
  times.total_s = first_read_s + Seconds(begin);
  times.threads = scorer->threads();
  times.table_mb = scorer->table_mb();
  results.Finish(files.checksum(), times.total_s);
  times_file.Write(times);
  std::printf("%s%s: scores of %s\n", times.Report().c_str(), (options.output / "result_Files").c_str(),
              options.input.c_str());
}

}  // namespace dlrm
