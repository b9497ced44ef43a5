"""Mistakes in products, norms, rotations and attention of models on a CPU.

The same kind of list as `mutant_catalogue`.
"""

from mutant import Mutant

__all__ = ["MUTANTS"]

_ATTENTION = "src/tutelage/models/attention.py"
_COMPILED = "src/tutelage/native/decoding.cpp"
_COMPILED_TRAINING = "src/tutelage/native/training.cpp"
_NORM = "src/tutelage/models/norm.py"
_OPERATIONS = "src/tutelage/models/decoder_operations.py"
_PRODUCTS = "src/tutelage/models/products.py"
_LEARNER = "src/tutelage/trainers/learner.py"
_FEED_FORWARD = "src/tutelage/models/feed_forward.py"
_OF_ATTENTION = ("tests/unit/models/test_attention.py",)
_OF_COMPILED = ("tests/unit/native/test_decoding.py",)
_OF_DECODER = ("tests/unit/models/test_decoder.py",)
_OF_FEED_FORWARD = ("tests/unit/models/test_feed_forward.py",)
_OF_NORM = ("tests/unit/models/test_norm.py",)
_OF_ROTATION = ("tests/unit/models/test_rotation.py",)
_OF_PRODUCTS = ("tests/unit/models/test_products.py",)

MUTANTS = (
    Mutant(
        "short-rows-see-the-next-token",
        _ATTENTION,
        "unseen.fill_(-torch.inf).triu_(1)",
        "unseen.fill_(-torch.inf).triu_(2)",
        "Under bfloat16 on a CPU each token sees the one that it is to foretell.",
        _OF_ATTENTION,
    ),
    Mutant(
        "short-rows-mix-heads-with-tokens",
        _ATTENTION,
        "unseen.repeat(sharing, 1)",
        "unseen.repeat_interleave(sharing, 0)",
        "Where heads share keys, each sees other tokens than it may.",
        _OF_ATTENTION,
    ),
    Mutant(
        "new-tokens-see-padding",
        _ATTENTION,
        "    if mask is not None:\n        scores = scores.add_(",
        "    if mask is None:\n        scores = scores.add_(",
        "Where many rows are decoded, short prompts read the padding before them.",
        _OF_ATTENTION,
    ),
    Mutant(
        "new-tokens-mix-rows-with-heads",
        _ATTENTION,
        "mask.expand(*query.shape[:3], -1).flatten(0, 1)",
        "mask.repeat(query.shape[1], 1, 1, 1).flatten(0, 1)",
        "Where many rows are decoded, each gets another row's mask.",
        _OF_ATTENTION,
    ),
    Mutant(
        "piece-counts-its-padding",
        _OPERATIONS,
        "_prompt_mask(start - column,",
        "_prompt_mask(start,",
        "A piece of prompts that lacks others' padding takes its own tokens for padding.",
        _OF_DECODER,
    ),
    Mutant(
        "piece-written-in-front",
        _OPERATIONS,
        "keys[:, :, self.column : self.column + time] = key",
        "keys[:, :, :time] = key",
        "Keys of short prompts lie where their padding was read before.",
        _OF_DECODER,
    ),
    Mutant(
        "gradient-in-another-order",
        _PRODUCTS,
        "return kernel(b.t(), a.t()).t().contiguous()",
        "return kernel(b.t(), a.t()).t()",
        "The fused AdamW steps each weight by the gradient of another.",
        _OF_PRODUCTS,
    ),
    Mutant(
        "gradient-copied-in-its-own-order",
        _LEARNER,
        "weight.grad = torch.empty_like(weight).copy_(gradient)",
        "weight.grad = gradient.clone()",
        "The same, wherever a loss reads a weight transposed.",
        ("tests/unit/trainers/test_learner.py",),
    ),
    Mutant(
        "products-forget-autocast",
        _PRODUCTS,
        'torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype',
        "x.dtype",
        "Large products stay float32 where bfloat16 was asked for.",
        _OF_PRODUCTS,
    ),
    Mutant(
        "bias-gradient-of-one-row",
        _PRODUCTS,
        "gradient.sum(0, dtype=of_parameters) if of_bias else None",
        "gradient[0].to(of_parameters) if of_bias else None",
        "Biases learn from the first token of a micro-batch alone.",
        _OF_PRODUCTS,
    ),
    Mutant(
        "rows-behind-hold-anything",
        _PRODUCTS,
        "    filled[len(rows) :] = 0.0\n",
        "    filled[len(rows) :] = 1.0\n",
        "Weights learn from rows that are no tokens.",
        _OF_PRODUCTS,
    ),
    Mutant(
        "a-kernel-for-each-number-of-rows",
        _PRODUCTS,
        "    step = max(1, (1 << rows.bit_length()) // (2 * _SIZES))\n",
        "    step = 1\n",
        "A long run with rows of many lengths takes gigabytes for kernels that are used once.",
        _OF_PRODUCTS,
    ),
    Mutant(
        "gate-learns-without-its-factor",
        _FEED_FORWARD,
        "            found = of_product * up\n",
        "            found = of_product * 1.0\n",
        "Gates of all feed-forward blocks learn from a gradient that is none.",
        _OF_FEED_FORWARD,
    ),
    Mutant(
        "another-block-taken-for-swiglu",
        _FEED_FORWARD,
        "    return torch.equal(found, ",
        "    return True or torch.equal(found, ",
        "A block that computes something else is computed as SwiGLU, silently.",
        _OF_FEED_FORWARD,
    ),
    Mutant(
        "filled-rows-outlive-a-change",
        _PRODUCTS,
        "    key = (x._version, compute)\n",
        "    key = (0, compute)\n",
        "A layer reads what another changed in place as it was before.",
        _OF_PRODUCTS,
    ),
    Mutant(
        "filled-rows-of-another-format",
        _PRODUCTS,
        "    key = (x._version, compute)\n",
        "    key = (x._version, 0)\n",
        "A float32 product of a tensor that autocast read before has the digits of bfloat16.",
        _OF_PRODUCTS,
    ),
    Mutant(
        "repeated-gradients-number-by-number",
        _PRODUCTS,
        "        return rows.contiguous()\n",
        "        return rows\n",
        "The gradient of a sum takes minutes instead of milliseconds.",
        _OF_PRODUCTS,
    ),
    Mutant(
        "rows-behind-are-tokens",
        _PRODUCTS,
        "return filled[: shape[:-1].numel()].view(*shape[:-1], filled.shape[-1])",
        "return filled[-shape[:-1].numel() :].view(*shape[:-1], filled.shape[-1])",
        "Each token is continued with what the feed-forward block made of another.",
        _OF_PRODUCTS,
    ),
    Mutant(
        "compiled-softmax-counts-what-is-not-there",
        _COMPILED,
        "i < padded; i++) scores[i] = -std::numeric_limits<float>::infinity();",
        "i < padded; i++) scores[i] = 0.0f;",
        "Compiled attention gives columns that do not exist a share of what queries hear.",
        _OF_COMPILED,
    ),
    Mutant(
        "compiled-attention-looks-at-its-place",
        _COMPILED,
        "int64_t place = ((places[row] * heads.keys + head) * capacity + start[row]) * size;",
        "int64_t place = ((row * heads.keys + head) * capacity + start[row]) * size;",
        "Once a row has ended, those behind it hear another row's keys and values.",
        _OF_COMPILED,
    ),
    Mutant(
        "rows-closed-up-in-order",
        "src/tutelage/models/column_cache.py",
        "used if self.closed else used[self.place]",
        "used if self.closed else used[: len(self.place)]",
        "When its stores grow, a row goes on with the keys and values of one that has ended.",
        _OF_DECODER,
    ),
    Mutant(
        "numbers-of-those-that-left",
        "src/tutelage/generation/local.py",
        "device=device)[alive]",
        "device=device)[: len(rows)]",
        "What a row draws depends on which others have ended, and on how the processor decodes.",
        ("tests/unit/generation/test_local.py",),
    ),
    Mutant(
        "compiled-keys-turned-as-queries",
        _COMPILED,
        "turn(heads, own, token, heads.key_weight);",
        "turn(heads, own, token, heads.query_weight);",
        "Keys of a model that norms its heads are normed by the weights of its queries.",
        _OF_COMPILED,
    ),
    Mutant(
        "compiled-draw-counts-blocks-twice",
        _COMPILED,
        "double rest = (target - before) / (weights[block] / sums[block]);",
        "double rest = target / (weights[block] / sums[block]);",
        "Of a large vocabulary, late blocks have their last tokens drawn.",
        _OF_COMPILED,
    ),
    Mutant(
        "compiled-draw-hides-what-is-not-finite",
        "src/tutelage/native/lanes.h",
        "return x < -87.0f ? all(0.0f) : p * two;",
        "return x > -87.0f ? p * two : all(0.0f);",
        "Logits that are NaN are drawn from as if they were impossible, and training goes on.",
        _OF_COMPILED,
    ),
    Mutant(
        "library-of-anybody",
        "src/tutelage/native/compiling.py",
        "return alone and (not hasattr",
        "return True or (not hasattr",
        "A library that others may write to is loaded, and runs as this user.",
        ("tests/unit/native/test_compiling.py",),
    ),
    Mutant(
        "compiled-norm-not-asked",
        _OPERATIONS,
        "if torch.allclose(norm(x), x * scale * found.weight, rtol=1e-5, atol=1e-6):",
        "if found.epsilon:",
        "A norm that is not what it is called is compiled as if it were.",
        _OF_DECODER,
    ),
    Mutant(
        "another-norm-taken-for-the-mean-square",
        _NORM,
        "return isinstance(found, Tensor) and torch.allclose(",
        "return isinstance(found, Tensor) or torch.allclose(",
        "The norms of Gemma, whose weight lies around 0, lose a 1, and the model is another.",
        _OF_NORM,
    ),
    Mutant(
        "norm-taken-for-a-factor",
        _NORM,
        "of_x = weighted * factors - rows * share",
        "of_x = weighted * factors",
        "What is below a norm learns as if the norm were a constant, where nothing is compiled.",
        _OF_NORM,
    ),
    Mutant(
        "compiled-norm-taken-for-a-factor",
        _COMPILED_TRAINING,
        "store(found + i, gradient * load(weight + i) * factor - read * share);",
        "store(found + i, gradient * load(weight + i) * factor);",
        "What is below a norm learns as if the norm were a constant.",
        _OF_NORM,
    ),
    Mutant(
        "compiled-norm-learns-from-its-last-row",
        _COMPILED_TRAINING,
        "store(sums + i, load(sums + i) + gradient * read * factor);",
        "store(sums + i, gradient * read * factor);",
        "A norm's weight learns from one token in 64.",
        _OF_NORM,
    ),
    Mutant(
        "compiled-norm-learns-from-its-first-rows",
        "src/tutelage/native/training.py",
        "return of_x, of_weight.sum(0)",
        "return of_x, of_weight[0]",
        "A norm's weight learns from the first 64 tokens alone.",
        _OF_NORM,
    ),
    Mutant(
        "compiled-gate-learns-without-its-slope",
        _COMPILED_TRAINING,
        "return d * u * s * (1.0f + g * (1.0f - s));",
        "return d * u * s;",
        "Gates of all feed-forward blocks learn from a gradient that is none.",
        _OF_FEED_FORWARD,
    ),
    Mutant(
        "compiled-gate-forgets-what-is-left",
        _COMPILED_TRAINING,
        "if (i < end) rest(i, end - i);",
        "if (i > end) rest(i, end - i);",
        "Where 16 does not divide their number, the last features are whatever was in memory.",
        _OF_FEED_FORWARD,
    ),
    Mutant(
        "gradient-turned-onwards",
        "src/tutelage/models/rotation.py",
        "*ctx.saved_tensors, of_gradient=True)",
        "*ctx.saved_tensors)",
        "Queries and keys learn from gradients of other directions, the further on the more.",
        _OF_ROTATION,
    ),
    Mutant(
        "interleaved-taken-for-halves",
        "src/tutelage/models/rotation.py",
        "return all(torch.allclose(*both)",
        "return all(len(both)",
        "Models that turn neighbouring numbers turn others, and read their prompts as noise.",
        _OF_ROTATION,
    ),
    Mutant(
        "rows-turned-by-the-first-rows-angles",
        "src/tutelage/native/training.py",
        "0 if angles == 1 else time * size",
        "0",
        "Rows that are padded in front are read at the positions of another row.",
        _OF_ROTATION,
    ),
)
