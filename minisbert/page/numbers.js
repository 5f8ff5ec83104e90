"use strict";
// The tensors of both texts, and the forward pass once more: minisbert/page/__init__.py writes what this file reads, in
// the same order. A tensor is { name, rows, columns, data }, row after row; attention has H T rows of T columns.
const numbers = (() => {
  // How far rounding to float16 and float32 moves a number; the smallest of float16 lie 2^-24 apart.
  const halfError = (x) => Math.max(2 ** -11 * Math.abs(x), 2 ** -25), singleError = (x) => 2 ** -24 * Math.abs(x);

  // ------------------------------------------------------------------------------------------------- three streams
  async function inflate(id) {
    const letters = atob(document.getElementById(id).textContent), packed = new Uint8Array(letters.length);
    for (let i = 0; i < letters.length; i++) packed[i] = letters.charCodeAt(i);
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  // All first bytes come first, then all second ones.
  function interleave(planes, size) {
    const count = planes.length / size, bytes = new Uint8Array(planes.length);
    for (let b = 0; b < size; b++) for (let i = 0; i < count; i++) bytes[i * size + b] = planes[b * count + i];
    return bytes.buffer;
  }

  // Every float16 by its bits: a million are looked up.
  const HALVES = new Float64Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
    HALVES[bits] = exponent ? sign * 2 ** (exponent - 15) * (1 + fraction / 1024) : sign * 2 ** -14 * (fraction / 1024);
  }

  class Streams {
    constructor(halves, singles, bytes, coefficients) {
      this.halves = new Uint16Array(interleave(halves, 2));
      this.singles = new Float32Array(interleave(singles, 4));
      this.bytes = new Int8Array(bytes.buffer);
      this.coefficients = coefficients;
      this.at = { halves: 0, singles: 0, bytes: 0, tensor: 0 };
      this.recomputed = { count: 0, worst: 0, name: "" };
    }

    half(name, rows, columns) {
      const data = new Float64Array(rows * columns), from = this.at.halves;
      for (let i = 0; i < data.length; i++) data[i] = HALVES[this.halves[from + i]];
      this.at.halves += data.length;
      return { name, rows, columns, data, error: halfError };
    }

    single(name, rows, columns) {
      const data = new Float64Array(this.singles.subarray(this.at.singles, this.at.singles += rows * columns));
      return { name, rows, columns, data, error: singleError };
    }

    // The model's tensor: what this page computed, and what that misses.
    missed(name, computed) {
      const { rows, columns, data } = computed, c = this.coefficients[this.at.tensor++], real = new Float64Array(data.length);
      let mean = 0, off = 0, largest = 0;
      for (const x of data) mean += Math.abs(x) / data.length;
      for (let i = 0; i < data.length; i++) {
        const x = data[i], miss = this.bytes[this.at.bytes + i] * c * (Math.abs(x) + mean);
        real[i] = x + miss;
        off = Math.max(off, Math.abs(miss));
        largest = Math.max(largest, Math.abs(real[i]));
      }
      this.at.bytes += data.length;
      this.recomputed.count += data.length;
      if (off / largest > this.recomputed.worst) Object.assign(this.recomputed, { worst: off / largest, name });
      return { name, rows, columns, data: real, error: (x) => c * (Math.abs(x) + mean) };
    }
  }

  // ------------------------------------------------------------------------------------------------ the operations
  const map = (like, compute) => ({ ...like, data: like.data.map(compute) });
  const row = (tensor, i) => tensor.data.subarray(i * tensor.columns, (i + 1) * tensor.columns);
  const add = (a, b) => map(a, (x, i) => x + b.data[i]);

  function sum(x) {
    let total = 0;
    for (let i = 0; i < x.length; i++) total += x[i];
    return total;
  }
  const mean = (x) => sum(x) / x.length, length = (x) => Math.sqrt(dot(x, x));

  function dot(a, b) {
    let total = 0;
    for (let i = 0; i < a.length; i++) total += a[i] * b[i];
    return total;
  }

  function standardize(x, eps) {
    const middle = mean(x), centred = x.map((value) => value - middle), variance = dot(centred, centred) / x.length;
    const root = Math.sqrt(variance + eps);
    return { middle, variance, z: centred.map((value) => value / root) };
  }

  function layerNorm(x, norm, eps) {
    const data = new Float64Array(x.data.length), [weight, bias] = [norm.weight.data, norm.bias.data];
    for (let i = 0; i < x.rows; i++) {
      const { z } = standardize(row(x, i), eps);
      for (let j = 0; j < z.length; j++) data[i * x.columns + j] = z[j] * weight[j] + bias[j];
    }
    return { ...x, data };
  }

  function softmax(scores) {
    const most = Math.max(...scores), powers = scores.map((s) => Math.exp(s - most)), total = sum(powers);
    return powers.map((p) => p / total);
  }

  // erfc by the Chebyshev fit of Numerical Recipes, section 6.2: right to 1.2e-7 of it.
  const FIT = [-1.26551223, 1.00002368, 0.37409196, 0.09678418, -0.18628806, 0.27886807, -1.13520398, 1.48851587,
    -0.82215223, 0.17087277];
  function normalCdf(x) {
    const z = Math.abs(x) / Math.SQRT2, t = 1 / (1 + z / 2);
    let power = 0;
    for (let n = FIT.length - 1; n >= 0; n--) power = power * t + FIT[n];
    const tail = t * Math.exp(power - z * z) / 2;
    return x < 0 ? tail : 1 - tail;
  }
  const sigmoid = (x) => 1 / (1 + Math.exp(-x));
  const ACTIVATIONS = {
    gelu: (x) => x * normalCdf(x),
    gelu_tanh: (x) => x / 2 * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
    identity: (x) => x, relu: (x) => Math.max(x, 0), sigmoid, silu: (x) => x * sigmoid(x), tanh: Math.tanh,
  };

  // query or key or value of one token and head: K of the D columns
  const ofHead = (tensor, i, h, K) => row(tensor, i).subarray(h * K, (h + 1) * K);

  function scoresOf(query, key, i, h, K) {  // of token i: with every token, over sqrt(K)
    const scores = new Float64Array(key.rows), q = ofHead(query, i, h, K);
    return scores.map((_, s) => dot(q, ofHead(key, s, h, K)) / Math.sqrt(K));
  }

  function attend(query, key, { H, K }) {
    const T = query.rows, probs = { rows: H * T, columns: T, data: new Float64Array(H * T * T) };
    for (let h = 0; h < H; h++) for (let i = 0; i < T; i++) row(probs, h * T + i).set(softmax(scoresOf(query, key, i, h, K)));
    return probs;
  }

  function gather(probs, value, { K }) {
    const T = value.rows, D = value.columns, data = new Float64Array(T * D);
    for (let i = 0; i < T; i++) for (let s = 0; s < T; s++) for (let j = 0; j < D; j++) {
      data[i * D + j] += probs.data[(Math.floor(j / K) * T + i) * T + s] * value.data[s * D + j];
    }
    return { ...value, data };
  }

  // ------------------------------------------------------------------------------------------- the forward pass
  const MATRICES = ["query", "key", "value", "output", "expand", "contract"];

  function readWeights(streams, { pieces, model, columns }) {
    const { D, F, L } = model, T = Math.max(...pieces.map((text) => text.length));
    const position = streams.half("position", T, D), tokenType = streams.half("token_type", 1, D);
    const norms = Array.from({ length: 1 + 2 * L }, () => ({ weight: streams.half("weight", 1, D), bias: streams.half("bias", 1, D) }));
    const matrices = columns.map((chosen) => Object.fromEntries(MATRICES.map((name) => [name, {
      column: chosen[name], weight: streams.half(name, 1, name === "contract" ? F : D), bias: streams.half(name, 1, 1),
    }])));
    return { position, tokenType, norms, matrices };
  }

  function forward(streams, weights, { pieces, model }, text) {
    const { D, F, L, eps } = model, T = pieces[text].length, tensors = new Map();
    const keep = (tensor) => (tensors.set(tensor.name, tensor), tensor);
    const half = (name, columns) => keep(streams.half(name, T, columns));
    const missed = (name, computed) => keep(streams.missed(name, computed));
    const word = half("embeddings.word", D);
    const position = keep({ ...weights.position, name: "embeddings.position", rows: T, data: weights.position.data.subarray(0, T * D) });
    const tokenType = map(word, (_, i) => weights.tokenType.data[i % D]);
    const summed = missed("embeddings.summed", add(add(word, position), tokenType));
    let hidden = missed("embeddings.output", layerNorm(summed, weights.norms[0], eps));
    for (let l = 0; l < L; l++) {
      const a = `layers.${l}.attention.`, f = `layers.${l}.feed_forward.`;
      const [query, key, value] = ["query", "key", "value"].map((name) => half(a + name, D));
      const probs = missed(a + "probs", attend(query, key, model));
      missed(a + "context", gather(probs, value, model));
      hidden = missed(a + "summed", add(hidden, half(a + "projected", D)));
      hidden = missed(a + "output", layerNorm(hidden, weights.norms[1 + 2 * l], eps));
      missed(f + "activated", map(half(f + "expanded", F), ACTIVATIONS[model.activation]));
      hidden = missed(f + "summed", add(hidden, half(f + "projected", D)));
      hidden = missed(f + "output", layerNorm(hidden, weights.norms[2 + 2 * l], eps));
    }
    keep(streams.single(hidden.name, T, D));  // the last layer's output again, as exact as the cosine
    return tensors;
  }

  // What the modules after BERT give is named as in a trace; the last is the sentence vector.
  const moduleNames = ({ widths }) => widths.map((_, i) => i === widths.length - 1 ? "sentence_embedding" : `modules.${i}`);

  async function read(data) {
    const streams = new Streams(...await Promise.all(["halves", "singles", "bytes"].map(inflate)), data.coefficients);
    const weights = readWeights(streams, data);
    const texts = [0, 1].map((text) => forward(streams, weights, data, text));
    moduleNames(data.model).forEach((name, i) => {  // a vector a text
      texts.forEach((tensors) => tensors.set(name, streams.single(name, 1, data.model.widths[i])));
    });
    return { weights, texts, recomputed: streams.recomputed };
  }

  return { read, moduleNames, row, sum, dot, mean, length, standardize, softmax, scoresOf, ofHead, normalCdf, ACTIVATIONS, halfError };
})();
