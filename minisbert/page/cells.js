"use strict";
// One number opened to the arithmetic that made it. cells.open gives { math, note, terms, steps, value, kept, bound }:
// the formula's template, a sentence, what is added up, the steps, what they give, the model's number, and how far
// rounding may move the two apart, since the page keeps most inputs with 11 bits.
const cells = (() => {
  const { moduleNames, row, sum, dot, mean, length, standardize, softmax, scoresOf, ofHead, normalCdf, ACTIVATIONS, halfError } = numbers;
  const MATRIX = { query: "query", key: "key", value: "value", expanded: "expand" };

  // A sum of products, and what rounding of a and b may do to it; of says what they are.
  function products(a, b, of, labels) {
    const terms = Array.from(a.data, (x, i) => ({ label: labels(i), a: x, b: b.data[i], product: x * b.data[i] }));
    const bound = sum(terms.map((t) => Math.abs(t.a) * b.error(t.b) + Math.abs(t.b) * a.error(t.a)));
    return { of, terms, value: sum(terms.map((t) => t.product)), bound };
  }
  const part = (tensor, values) => ({ data: values, error: tensor.error });

  // data: the page's; tensors: of this text; name, i, j: which number
  function open({ data, weights, tensors, text }, name, i, j) {
    const { D, K, eps, activation } = data.model, pieces = data.pieces[text];
    const tensor = tensors.get(name), kept = tensor.data[i * tensor.columns + j];
    const [, layer, half, last] = name.match(/^(?:layers\.(\d+)\.(\w+)|[\w]+)\.?(\w*)$/) ?? [];
    const of = (what) => tensors.get(`layers.${layer}.${half}.${what}`);
    const before = half === "feed_forward" ? tensors.get(`layers.${layer}.attention.output`)
      : tensors.get(layer > 0 ? `layers.${layer - 1}.feed_forward.output` : "embeddings.output");
    const exact = tensor.error(kept);  // how exactly the page keeps it
    const cell = (found) => ({ kept, exact, terms: [], steps: [], note: "", ...found, bound: found.bound + exact + 1e-9 });
    const at = (t) => t.data[i * D + j];

    function linear(input, matrix, what) {
      const { column, weight, bias } = weights.matrices[layer][matrix];
      if (j !== column) {
        return { kept, math: "linear", instead: column, terms: [], steps: [], note: `The row of ${matrix} that makes column ${j} is not on ` +
          `this page: the model's matrices have millions of numbers. The row that makes column ${column} is.` };
      }
      const found = products(part(input, row(input, i)), weight, [what, "weight"], (d) => `column ${d}`);
      return cell({ math: "linear", ...found, value: found.value + bias.data[0], bound: found.bound + bias.error(bias.data[0]),
        steps: [["sum of the products", found.value], ["bias", bias.data[0]]] });
    }

    function layerNorm(input, norm) {
      const x = row(input, i), { middle, variance, z } = standardize(x, eps), w = norm.weight.data[j], b = norm.bias.data[j];
      const errors = x.map((value) => input.error(value)), root = Math.sqrt(variance + eps);
      const bound = Math.abs(w) / root * (errors[j] + mean(errors) + Math.abs(z[j]) * Math.sqrt(mean(errors.map((e) => e * e)))) +
        Math.abs(z[j]) * halfError(w) + halfError(b);
      return cell({ math: "layer-norm", note: `Over the ${x.length} numbers of this token:`, value: z[j] * w + b, bound, steps: [
        ["x", x[j]], ["mean", middle], ["variance", variance], ["z = (x − mean) / √(variance + eps)", z[j]], ["weight", w], ["bias", b]] });
    }

    if (name === "embeddings.word") return { kept, math: "look-up", terms: [], steps: [], note: `Row ${data.ids[text][i]} of the word ` +
      `table, that of “${pieces[i]}”; learnt, not computed.` };
    if (name === "embeddings.position") return { kept, math: "look-up", terms: [], steps: [], note: `Row ${i} of the position table: ` +
      `“${pieces[i]}” stands at place ${i}; learnt, not computed.` };
    if (name === "embeddings.summed") {
      const parts = [tensors.get("embeddings.word"), tensors.get("embeddings.position")].map((t) => [t, at(t)]);
      const type = weights.tokenType.data[j];
      return cell({ math: "tables", value: sum(parts.map(([, x]) => x)) + type, bound: sum(parts.map(([t, x]) => t.error(x))) + halfError(type),
        steps: [["word", parts[0][1]], ["position", parts[1][1]], ["token type 0", type]] });
    }
    if (name === "embeddings.output") return layerNorm(tensors.get("embeddings.summed"), weights.norms[0]);
    if (last === "output") return layerNorm(of("summed"), weights.norms[1 + 2 * layer + (half === "feed_forward")]);
    if (last in MATRIX) return linear(before, MATRIX[last], "hidden");
    if (last === "projected") return half === "attention" ? linear(of("context"), "output", "context") : linear(of("activated"), "contract", "activated");
    if (last === "summed") {
      const projected = of("projected");
      return cell({ math: "residual", value: at(before) + at(projected), bound: before.error(at(before)) + projected.error(at(projected)),
        steps: [["what came in", at(before)], ["what the block computed", at(projected)]] });
    }
    if (last === "probs") {
      const T = tensor.columns, h = Math.floor(i / T), q = of("query"), k = of("key");
      const scores = scoresOf(q, k, i % T, h, K), shares = softmax(scores), most = Math.max(...scores);
      const off = Math.max(...Array.from({ length: T }, (_, s) => score(q, k, i % T, s, h, K).bound));
      return cell({ math: "softmax", value: shares[j], bound: shares[j] * Math.expm1(2 * off), table: {
        head: ["token", "score", "exp(score − max)", "share"],
        rows: Array.from(scores, (s, t) => [`${t === j ? "→ " : ""}${pieces[t]}`, s, Math.exp(s - most), shares[t]]),
        sum: ["sum", null, sum(Array.from(scores, (s) => Math.exp(s - most))), 1] } });
    }
    if (last === "context") {
      const probs = of("probs"), value = of("value"), T = probs.columns, h = Math.floor(j / K);
      const column = Float64Array.from({ length: T }, (_, s) => value.data[s * D + j]);
      return cell({ math: "context", note: `Column ${j} belongs to head ${h}. Share times value, of every token:`,
        ...products(part(probs, row(probs, h * T + i)), part(value, column), ["share", "value"], (s) => pieces[s]) });
    }
    if (last === "activated") {
      const x = of("expanded").data[i * tensor.columns + j], value = ACTIVATIONS[activation](x);
      return cell({ math: activation === "gelu" ? "gelu" : "activation", value, bound: 1.2 * of("expanded").error(x),
        steps: [["x", x], ...(activation === "gelu" ? [["Φ(x): the share of a normal distribution below x", normalCdf(x)]] : [])] });
    }
    const names = moduleNames(data.model), place = names.indexOf(name), kind = data.model.modules[place];
    if (kind === "mean") {
      const output = tensors.get(`layers.${data.model.L - 1}.feed_forward.output`), T = output.rows;
      const column = Array.from({ length: T }, (_, t) => output.data[t * D + j]);
      return cell({ math: "mean", value: mean(column), bound: T * mean(column.map(output.error)), table: {
        head: ["token", `column ${j}`], rows: column.map((x, t) => [pieces[t], x]), sum: [`sum, divided by ${T}`, mean(column)] } });
    }
    if (kind === "normalize" && place > 0) {
      const vector = tensors.get(names[place - 1]), value = vector.data[j] / length(vector.data);
      return cell({ math: "normalize", value, bound: 2 * vector.error(value),
        steps: [["the vector before", vector.data[j]], ["length of that vector", length(vector.data)]] });
    }
    return { kept, math: null, terms: [], steps: [], note: `The module “${kind}” makes it; see minisbert/model/pooling.py.` };
  }

  // One score: a dot product over sqrt(K).
  function score(query, key, i, s, h, K) {
    const found = products(part(query, ofHead(query, i, h, K)), part(key, ofHead(key, s, h, K)), ["query", "key"], (k) => `column ${h * K + k}`);
    const root = Math.sqrt(K);
    return { math: "score", note: "", ...found, value: found.value / root, bound: found.bound / root,
      steps: [["sum of the products", found.value], [`√K = √${K}`, root]] };
  }

  // What two tokens contribute to the cosine.
  function pair(outputs, i, j, kept) {
    const [t, u] = [row(outputs[0], i), row(outputs[1], j)];
    const totals = outputs.map((output) => Float64Array.from({ length: output.columns }, (_, d) => {
      let total = 0;
      for (let s = 0; s < output.rows; s++) total += output.data[s * output.columns + d];
      return total;
    }));
    const [a, b] = totals.map(length), lengths = [t, u].map(length), product = dot(t, u);
    return { math: "pair", kept, exact: 0, value: product / (a * b), bound: 1e-7, terms: [], note: "", steps: [
      ["length of A's token vector", lengths[0]], ["length of B's token vector", lengths[1]],
      ["cosine of the two token vectors", product / lengths[0] / lengths[1]], ["their dot product: the three multiplied", product],
      ["T_a |a|: length of the sum of A's token vectors", a], ["T_b |b|: the same for B", b]] };
  }

  return { open, score, pair };
})();
