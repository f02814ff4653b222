// node logits.cjs RUNTIME MODEL IMAGES N C H W: the logits that ONNX Runtime gives for N images, float32 [N,C,H,W] in the
// file IMAGES, as raw float32 on standard output. RUNTIME is the folder of onnxruntime-node.
const fs = require("fs");
const path = require("path");

const [runtime, model, images, ...dims] = process.argv.slice(2);
const ort = require(path.resolve(runtime));

async function main() {
  const session = await ort.InferenceSession.create(model, { intraOpNumThreads: 1, graphOptimizationLevel: "all" });
  const [n, c, h, w] = dims.map(Number);
  const raw = fs.readFileSync(images);
  const pixels = new Float32Array(raw.buffer, raw.byteOffset, n * c * h * w);
  const each = c * h * w;
  const out = [];
  for (let i = 0; i < n; i += 100) {
    const batch = Math.min(100, n - i);
    const x = new ort.Tensor("float32", pixels.slice(i * each, (i + batch) * each), [batch, c, h, w]);
    const logits = (await session.run({ [session.inputNames[0]]: x }))[session.outputNames[0]];
    out.push(Buffer.from(new Float32Array(logits.data).buffer));
  }
  fs.writeSync(1, Buffer.concat(out));
}

main().catch((e) => {
  console.error(e.message);
  process.exit(1);
});
