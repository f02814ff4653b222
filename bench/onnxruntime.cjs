// The same inference in ONNX Runtime: node onnxruntime.cjs JOB, with JOB a JSON object as pytorch.py takes it, and the
// folder of the module onnxruntime-node in "module". Runs once for every line on standard input.
const fs = require("fs");
const path = require("path");
const readline = require("readline");

const job = JSON.parse(process.argv[2]);
const ort = require(path.resolve(job.module));

function read(file) {
  const raw = fs.readFileSync(file);
  const size = Number(raw.readBigUInt64LE(0));
  const header = JSON.parse(raw.subarray(8, 8 + size).toString());
  return (name) => {
    const [begin, end] = header[name].data_offsets;
    return { shape: header[name].shape, data: new Float32Array(raw.buffer.slice(raw.byteOffset + 8 + size + begin, raw.byteOffset + 8 + size + end)) };
  };
}

async function main() {
  const model = await ort.InferenceSession.create(job.onnx, {
    intraOpNumThreads: job.threads, interOpNumThreads: 1, executionMode: "sequential", graphOptimizationLevel: "all",
  });
  const x = read(job.inputs)("x");
  const [n, h, w, c] = x.shape;
  const data = new Float32Array(x.data.length);
  for (let i = 0; i < n; i++)
    for (let p = 0; p < h * w; p++)
      for (let k = 0; k < c; k++) data[(i * c + k) * h * w + p] = x.data[(i * h * w + p) * c + k];
  const feeds = { images: new ort.Tensor("float32", data, [n, c, h, w]) };
  console.log("ready " + require(path.resolve(job.module, "package.json")).version);
  for await (const _ of readline.createInterface({ input: process.stdin })) {
    await model.run(feeds);
    const begin = process.hrtime.bigint();
    const elapsed = () => Number(process.hrtime.bigint() - begin) / 1e9;
    let logits;
    let runs = 0;
    for (; runs === 0 || elapsed() < job.seconds; runs++) logits = (await model.run(feeds)).logits.data;
    const seconds = elapsed() / runs;
    const value = logits.reduce((sum, v) => sum + Math.abs(v), 0);
    console.log(JSON.stringify({ seconds, value, peak: process.resourceUsage().maxRSS * 1024 }));
  }
}

main();
