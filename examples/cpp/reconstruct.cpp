// Runs the model on events that examples/python/reconstruct.py prepared.
//
//   reconstruct model.onnx INPUTS.bin
//
// Prints a line for each candidate: event, element, class, charge, px, py, pz, energy (GeV), weight,
// and 1 where the candidate belongs to lists of particles, else 0.

#include <onnxruntime_cxx_api.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

constexpr float kWeightMin = 0.02f;  // as in examples/python/reconstruct.py

template <typename T>
std::vector<T> read(std::ifstream& file, std::int64_t n) {
  std::vector<T> values(n);
  file.read(reinterpret_cast<char*>(values.data()), n * sizeof(T));
  return values;
}

template <typename T>
Ort::Value tensor(std::vector<T>& values, const std::vector<std::int64_t>& shape) {
  // refers to the values, so these must outlive it
  static const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  return Ort::Value::CreateTensor<T>(memory, values.data(), values.size(), shape.data(),
                                     shape.size());
}

void print_candidates(std::int64_t event, std::int64_t n, const std::vector<Ort::Value>& outputs,
                      float threshold) {
  const auto n_scores = outputs[0].GetTensorTypeAndShapeInfo().GetShape().back();
  const auto* scores = outputs[0].GetTensorData<float>();
  const auto* charge = outputs[1].GetTensorData<std::int64_t>();
  const auto* p4 = outputs[2].GetTensorData<float>();
  const auto* weight = outputs[3].GetTensorData<float>();
  for (std::int64_t i = 0; i < n; ++i) {
    if (weight[i] <= kWeightMin) continue;
    const float* of_element = scores + i * n_scores;
    std::int64_t best = 1;  // column 0 is "no particle"
    for (std::int64_t k = 2; k < n_scores; ++k)
      if (of_element[k] > of_element[best]) best = k;
    std::printf("%lld %lld %lld %lld", static_cast<long long>(event), static_cast<long long>(i),
                static_cast<long long>(best), static_cast<long long>(charge[i]));
    for (int k = 0; k < 4; ++k) std::printf(" %.9g", p4[4 * i + k]);
    std::printf(" %.9g %d\n", weight[i], weight[i] >= threshold);
  }
}

int run(const char* model, const char* inputs) {
  Ort::Env env(ORT_LOGGING_LEVEL_ERROR, "reconstruct");  // one for a process
  Ort::SessionOptions options;
  options.SetIntraOpNumThreads(1);  // the framework runs events side by side
  options.SetInterOpNumThreads(1);
  Ort::Session session(env, model, options);
  Ort::AllocatorWithDefaultOptions allocator;
  const auto told = session.GetModelMetadata().LookupCustomMetadataMapAllocated(
      "presence_threshold", allocator);
  const float threshold = std::stof(told.get());
  const auto shape = session.GetInputTypeInfo(0).GetTensorTypeAndShapeInfo().GetShape();
  const std::int64_t n_features = shape.back();  // of [batch, elements, features]

  const std::array<const char*, 2> names{"features", "element_type"};
  const std::array<const char*, 4> asked{"class_scores", "charge", "p4", "weight"};
  std::ifstream file(inputs, std::ios::binary);
  std::int64_t n = 0;
  for (std::int64_t event = 0; file.read(reinterpret_cast<char*>(&n), sizeof n); ++event) {
    auto features = read<float>(file, n * n_features);
    auto types = read<std::int64_t>(file, n);
    if (!file) throw std::runtime_error(std::string(inputs) + ": ends within an event");
    if (n == 0) continue;  // nothing to reconstruct
    std::array<Ort::Value, 2> fed{tensor(features, {1, n, n_features}), tensor(types, {1, n})};
    const auto outputs = session.Run(Ort::RunOptions{nullptr}, names.data(), fed.data(),
                                     fed.size(), asked.data(), asked.size());
    print_candidates(event, n, outputs, threshold);
  }
  return 0;
}

int main(int argc, char** argv) try {
  if (argc == 3) return run(argv[1], argv[2]);
  std::fprintf(stderr, "usage: %s model.onnx INPUTS.bin\n", argv[0]);
  return 2;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
