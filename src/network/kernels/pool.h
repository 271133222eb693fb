// Threads: loops whose parts run on all of the machine's cores, and how large a part should be.

#ifndef DLRM_KERNELS_POOL_H_
#define DLRM_KERNELS_POOL_H_

#include <signal.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <thread>

namespace {

// Runs parts of a loop on the calling thread and on helpers. Between jobs a helper watches for the next one about as
// long as MindSpore takes to the next operator, since to wake it takes longer than many a part, and then sleeps.
class Pool {
 public:
  static Pool &Get() {
    static Pool *pool = new Pool;  // never destroyed: its threads outlive main
    return *pool;
  }

  // Calls part(begin, end) for [0, count) in steps of `grain`. Parts may run at the same time.
  void For(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)> &part) {
    std::unique_lock<std::mutex> only(in_use_, std::try_to_lock);
    if (count <= grain || helpers_ == 0 || !only) {
      for (int64_t begin = 0; begin < count; begin += grain) part(begin, std::min(begin + grain, count));
      return;
    }
    {
      std::lock_guard<std::mutex> lock(mutex_);
      part_ = &part;
      count_ = count;
      grain_ = grain;
      next_ = 0;
      open_ = true;
      ++job_;
    }
    if (asleep_) wake_.notify_all();
    Work(part, count, grain);
    std::unique_lock<std::mutex> lock(mutex_);
    open_ = false;  // who has not begun by now need not
    while (busy_ > 0) {
      lock.unlock();
      for (int i = 0; i < kSpins && busy_ > 0; ++i) Pause();
      lock.lock();
      if (busy_ > 0) done_.wait_for(lock, std::chrono::microseconds(50));
    }
  }

 private:
  static constexpr int kSpins = 2000;  // some 30 microseconds

  static void Pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }

  // Threads beside the calling one: of those that the machine has, or that the user allows by OMP_NUM_THREADS, of which
  // src/model_utils/aot.py keeps a copy, as MindSpore sets the variable itself; at most 16.
  static int Helpers() {
    int threads = std::min(16, static_cast<int>(std::thread::hardware_concurrency()));
    const char *allowed = std::getenv("DLRM_CPU_THREADS");
    if (allowed && std::atoi(allowed) > 0) threads = std::min(threads, std::atoi(allowed));
    return std::max(0, threads - 1);
  }

  // Helpers take no signals, whose frames would be written over the heap: see held_back in src/base/stops.py.
  Pool() : helpers_(Helpers()) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (int i = 0; i < helpers_; ++i) std::thread([this] { Loop(); }).detach();
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  void Work(const std::function<void(int64_t, int64_t)> &part, int64_t count, int64_t grain) {
    for (int64_t begin; (begin = next_.fetch_add(grain)) < count;) part(begin, std::min(begin + grain, count));
  }

  void Loop() {
    int64_t seen = 0;
    while (true) {
      for (int i = 0; i < kSpins && job_ == seen; ++i) Pause();
      std::unique_lock<std::mutex> lock(mutex_);
      ++asleep_;
      wake_.wait(lock, [&] { return job_ != seen; });
      --asleep_;
      seen = job_;
      if (!open_) continue;
      ++busy_;
      const auto *part = part_;
      const int64_t count = count_, grain = grain_;
      lock.unlock();
      Work(*part, count, grain);
      lock.lock();
      if (--busy_ == 0) done_.notify_one();
    }
  }

  const int helpers_;
  std::mutex in_use_, mutex_;
  std::condition_variable wake_, done_;
  const std::function<void(int64_t, int64_t)> *part_ = nullptr;
  int64_t count_ = 0, grain_ = 0;
  std::atomic<int64_t> next_{0}, job_{0};
  std::atomic<int> busy_{0}, asleep_{0};
  bool open_ = false;
};

// Values that are worth a part of their own.
constexpr int64_t kPartValues = 1 << 14;

// How many steps of a loop make such a part.
inline int64_t Grain(int64_t values_each) {
  return std::max<int64_t>(1, kPartValues / std::max<int64_t>(1, values_each));
}

}  // namespace

#endif  // DLRM_KERNELS_POOL_H_
