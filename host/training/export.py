"""Write the trained network as a .tflite file and compare it with torch.

    python host/training/export.py RUN

writes MODEL and GOLDEN in the repository, the second being what the network in torch answers to a fixed
input, with the rounded weights of the file: a test holds the file to it on every runtime. Needs torch and
ai-edge-litert, whose schema is all the writer needs.
The same checkpoint gives the same bytes.

Only operators of version 1 are used, but for DEQUANTIZE (matrices are kept in half precision), so that
tflite-runtime 2.14 runs the file, too. Per-channel int8 would be smaller, but runs there with wrong results.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import flatbuffers
import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from network import N_BINS, NEIGHBOURS, Bins, Suppressor
from numpy.typing import NDArray

from unplay.removal.neural import EARLIER, INPUTS, LOOK_AHEAD, N_RECURRENT, OUTPUTS, STATES

FloatArray = NDArray[np.floating]

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "host/unplay/models/residual_suppressor.tflite"
GOLDEN = ROOT / "tests/host/golden/residual_suppressor.npz"

TOLERANCE = 1e-5
"""Of gains, between torch and the runtime: both add up a few hundred products in single precision."""
N_GOLDEN_FRAMES = 40

CAUTION = 1.0
"""Added under the sigmoid of every gain: the loss counts quiet echo for more than the talker's loss. On the
validation scenes the gain in SI-SDR is much the same with 0, 0.5 and 1; with 1 the fewest are harmed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    network = network_of(parser.parse_args().run / "checkpoint.pt")
    model = written(network)
    golden = golden_frames(network)
    difference = np.max(np.abs(run(model, golden["powers"]) - golden["gains"]))
    print(f"{len(model) / 1e6:.2f} MB, greatest difference from torch {difference:.1e}")
    if difference > TOLERANCE:
        raise SystemExit(f"The file computes something else than torch: {difference:.1e} > {TOLERANCE:g}.")
    MODEL.write_bytes(model)
    np.savez_compressed(GOLDEN, **golden)


def network_of(checkpoint: Path) -> Suppressor:
    """The averaged network, with CAUTION, its matrices rounded to half precision as the file keeps them."""
    average = torch.load(checkpoint)["average"]
    network = Suppressor(len(average["inward.bias"]), len(average["bins.inward.bias"]))
    network.load_state_dict(
        {name: value.half().float() if value.ndim > 1 else value for name, value in average.items()}
    )
    with torch.no_grad():
        network.head.bias[:N_BINS] += CAUTION
    return network.eval()


class Graph:
    """The tensors and operators of a model, in the order in which they are added."""

    def __init__(self) -> None:
        self.buffers: list[schema.BufferT] = [schema.BufferT()]  # the first means: no data
        self.tensors: list[schema.TensorT] = []
        self.operators: list[schema.OperatorT] = []
        self.codes: list[tuple[int, int]] = []
        self.constants: list[torch.Tensor] = []
        """The network's own weights, in the order of the file."""

    def tensor(self, name: str, shape: tuple[int, ...], data: FloatArray | None = None) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape = name, np.array(shape, np.int32)
        half = data is not None and data.dtype == np.float16
        tensor.type = schema.TensorType.FLOAT16 if half else schema.TensorType.FLOAT32
        if data is not None:
            buffer = AlignedBuffer()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            self.buffers.append(buffer)
            tensor.buffer = len(self.buffers) - 1
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def operator(self, kind: str, inputs: list[int], shape: tuple[int, ...], name: str = "") -> int:
        """kind: as `BuiltinOperator` calls it. Returns the output."""
        output = self.tensor(name or f"{kind.lower()}_{len(self.tensors)}", shape)
        code = getattr(schema.BuiltinOperator, kind), 3 if kind == "DEQUANTIZE" else 1
        if code not in self.codes:
            self.codes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex = self.codes.index(code)
        operator.inputs, operator.outputs = np.array(inputs, np.int32), np.array([output], np.int32)
        options = kind.title().replace("_", "") + "Options"
        if options in OPTIONS:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            operator.builtinOptions = OPTIONS[options]()
        if kind == "RESHAPE":
            operator.builtinOptions.newShape = np.array(shape, np.int32)
        self.operators.append(operator)
        return output

    def constant(self, value: torch.Tensor) -> int:
        """A matrix in half precision, a vector or a convolution's few weights in full."""
        self.constants.append(value)
        array = value.detach().numpy()
        if array.ndim != 2:
            return self.tensor(f"vector_{len(self.tensors)}", array.shape, array)
        half = self.tensor(f"matrix_{len(self.tensors)}", array.shape, array.astype(np.float16))
        return self.operator("DEQUANTIZE", [half], array.shape)

    def linear(self, x: int, weight: torch.Tensor, bias: torch.Tensor | None) -> int:
        """A row of x after the other."""
        constants = [self.constant(value) for value in (weight, bias) if value is not None]
        n_rows, _ = self.tensors[x].shape
        return self.operator("FULLY_CONNECTED", [x, *constants], (int(n_rows), len(weight)))

    def gated(self, x: int, state: int, layer: torch.nn.GRU, name: str) -> int:
        """A GRU step, as torch defines it: n + z·(h − n), n = tanh(x' + r·h')."""
        n = layer.hidden_size
        weights = [
            getattr(layer, f"{kind}_l0").split(n) for kind in ("weight_ih", "bias_ih", "weight_hh", "bias_hh")
        ]
        (xr, xz, xn), (hr, hz, hn) = (
            [self.linear(source, w, b) for w, b in zip(*pair, strict=True)]
            for source, pair in ((x, weights[:2]), (state, weights[2:]))
        )
        shape = (1, n)
        reset = self.operator("LOGISTIC", [self.operator("ADD", [xr, hr], shape)], shape)
        keep = self.operator("LOGISTIC", [self.operator("ADD", [xz, hz], shape)], shape)
        product = self.operator("MUL", [reset, hn], shape)
        new = self.operator("TANH", [self.operator("ADD", [xn, product], shape)], shape)
        difference = self.operator("SUB", [state, new], shape)
        return self.operator("ADD", [new, self.operator("MUL", [keep, difference], shape)], shape, name)

    def columns(self, rows: list[int]) -> int:
        """Rows of the bins (1, 257) as the columns of a matrix."""
        single = [self.operator("RESHAPE", [row], (N_BINS, 1)) for row in rows]
        return self.operator("CONCATENATION", single, (N_BINS, len(rows)))

    def bins(
        self, powers: list[int], earlier: list[int], answers: list[int], state: int, stage: Bins
    ) -> tuple[list[int], int]:
        """What the last stage adds to the answers, and its next state."""
        n_units, n_powers, n_beside = len(stage.inward.bias), len(powers), 2 * NEIGHBOURS + 1
        shape = (N_BINS, n_units)
        seen_beside, seen = stage.inward.weight.split(
            [n_beside * n_powers, len(earlier) + len(answers)], dim=1
        )
        image = self.operator("RESHAPE", [self.columns(powers)], (1, N_BINS, 1, n_powers))
        kernel = self.constant(seen_beside.unflatten(1, (n_beside, 1, n_powers)))
        inputs = [image, kernel, self.constant(stage.inward.bias)]
        beside = self.operator("CONV_2D", inputs, (1, N_BINS, 1, n_units))
        own = self.linear(self.columns([*earlier, *answers]), seen, None)
        sum_ = self.operator("ADD", [self.operator("RESHAPE", [beside], shape), own], shape)
        x = self.operator("TANH", [sum_], shape)
        gate = self.operator("LOGISTIC", [self.linear(x, stage.gate.weight, stage.gate.bias)], shape)
        fresh = self.operator("TANH", [self.linear(x, stage.fresh.weight, stage.fresh.bias)], shape)
        step = self.operator("MUL", [gate, self.operator("SUB", [fresh, state], shape)], shape)
        followed = self.operator("ADD", [state, step], shape, "next_bins")
        both = self.operator("CONCATENATION", [x, followed], (N_BINS, 2 * n_units))
        y = self.operator("TANH", [self.linear(both, stage.outward.weight, stage.outward.bias)], shape)
        last = zip(stage.answer.weight.split(1), stage.answer.bias.split(1), strict=True)
        added = [self.operator("RESHAPE", [self.linear(y, *constants)], (1, N_BINS)) for constants in last]
        return added, followed


class AlignedBuffer(schema.BufferT):
    """Data that begins at a multiple of 16 bytes, as the schema asks for and its generated code forgets."""

    def Pack(self, builder: flatbuffers.Builder) -> int:
        builder.StartVector(1, len(self.data), 16)
        builder.head -= len(self.data)
        builder.Bytes[builder.head : builder.head + len(self.data)] = self.data.tobytes()
        data = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, data)
        return schema.BufferEnd(builder)


def concatenation() -> schema.ConcatenationOptionsT:
    options = schema.ConcatenationOptionsT()
    options.axis = 1
    return options


def convolution() -> schema.Conv2DOptionsT:
    options = schema.Conv2DOptionsT()
    options.padding, options.strideH, options.strideW = schema.Padding.SAME, 1, 1
    return options


OPTIONS = {
    "FullyConnectedOptions": schema.FullyConnectedOptionsT,
    "AddOptions": schema.AddOptionsT,
    "SubOptions": schema.SubOptionsT,
    "MulOptions": schema.MulOptionsT,
    "ConcatenationOptions": concatenation,
    "ReshapeOptions": schema.ReshapeOptionsT,
    "Conv2DOptions": convolution,
}


@torch.no_grad()
def written(network: Suppressor) -> bytes:
    graph = Graph()
    return packed(graph, *built(graph, network))


def built(graph: Graph, network: Suppressor) -> tuple[list[int], list[int]]:
    """The network's tensors and operators: inputs and outputs."""
    n_hidden, n_units = network.inward.out_features, network.bins.inward.out_features
    powers = [graph.tensor(name, (1, N_BINS)) for name in INPUTS]
    earlier = [graph.tensor(f"earlier_{name}", (1, N_BINS)) for name in EARLIER]
    shapes = ((1, n_hidden), (1, n_hidden), (N_BINS, n_units))
    states = [graph.tensor(name, shape) for name, shape in zip(STATES, shapes, strict=True)]
    together = graph.operator("CONCATENATION", powers[:N_RECURRENT], (1, N_RECURRENT * N_BINS))
    inward = graph.linear(together, network.inward.weight, network.inward.bias)
    x = graph.operator("TANH", [inward], (1, n_hidden))
    first = graph.gated(x, states[0], network.first, "next_first")
    second = graph.gated(first, states[1], network.second, "next_second")
    heads = zip(network.head.weight.split(N_BINS), network.head.bias.split(N_BINS), strict=True)
    offset, *slopes, cautious, quick = (graph.linear(second, weight, bias) for weight, bias in heads)
    shape = (1, N_BINS)
    for slope, power in zip(slopes, earlier, strict=True):
        offset = graph.operator("ADD", [offset, graph.operator("MUL", [slope, power], shape)], shape)
    answers = [offset, cautious, quick]
    added, followed = graph.bins(powers, earlier, answers, states[2], network.bins)
    outputs = [
        graph.operator("LOGISTIC", [graph.operator("ADD", [x, y], shape)], shape, name)
        for x, y, name in zip(answers, added, OUTPUTS, strict=True)
    ]
    return [*powers, *earlier, *states], [*outputs, first, second, followed]


@torch.no_grad()
def take_weights(network: Suppressor, model: bytes) -> None:
    """Give the network the weights of a file that `written` made: checkpoints aren't kept. To inputs that a
    file doesn't know it gives none."""
    stored, graph = schema.ModelT.InitFromPackedBuf(model), Graph()
    built(graph, network)
    kept = [
        np.frombuffer(
            bytes(buffer.data), "<f2" if tensor.type == schema.TensorType.FLOAT16 else "<f4"
        ).reshape(tensor.shape)
        for tensor in stored.subgraphs[0].tensors
        if (buffer := stored.buffers[tensor.buffer]).data is not None
    ]
    for weights, values in zip(graph.constants, kept, strict=True):
        weights.zero_()
        weights[..., : values.shape[-1]] = torch.from_numpy(values.astype(np.float32))
    network.head.bias[:N_BINS] -= CAUTION


def packed(graph: Graph, inputs: list[int], outputs: list[int]) -> bytes:
    subgraph = schema.SubGraphT()
    subgraph.name = "frame"
    subgraph.tensors, subgraph.operators = graph.tensors, graph.operators
    subgraph.inputs, subgraph.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
    model = schema.ModelT()
    model.version, model.description = 3, "unplay residual echo suppressor"
    model.buffers, model.subgraphs, model.operatorCodes = graph.buffers, [subgraph], []
    for kind, version in graph.codes:
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = kind
        code.version = version
        model.operatorCodes.append(code)
    builder = flatbuffers.Builder(1 << 22)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@torch.no_grad()
def golden_frames(network: Suppressor) -> dict[str, FloatArray]:
    """`powers` (5, n_frames, 257), in the order of INPUTS, and the answers to them, `gains`
    (3, n_frames − LOOK_AHEAD, 257), in the order of OUTPUTS."""
    rng = np.random.default_rng(7)
    walk = np.cumsum(rng.standard_normal((len(INPUTS), N_GOLDEN_FRAMES, N_BINS)), axis=1)
    powers = np.clip(0.3 * walk, -2.5, 2).astype(np.float32)
    answers = network(list(torch.from_numpy(powers)[:, None]))
    return {"powers": powers, "gains": torch.cat(answers).numpy()}


def run(model: bytes, powers: FloatArray) -> FloatArray:
    """Answers (3, n_frames − LOOK_AHEAD, 257) by the runtime."""
    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    at = {d["name"]: d["index"] for d in interpreter.get_input_details() + interpreter.get_output_details()}
    answers = []
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(detail["index"], np.zeros(detail["shape"], np.float32))
    for t in range(powers.shape[1]):
        for k, name in enumerate(INPUTS):
            interpreter.set_tensor(at[name], powers[k, t : t + 1])
            if name in EARLIER:
                earlier = max(0, t - LOOK_AHEAD)
                interpreter.set_tensor(at[f"earlier_{name}"], powers[k, earlier : earlier + 1])
        interpreter.invoke()
        answers.append([interpreter.get_tensor(at[name])[0] for name in OUTPUTS])
        for name in STATES:
            interpreter.set_tensor(at[name], interpreter.get_tensor(at[f"next_{name}"]))
    return np.array(answers[LOOK_AHEAD:]).swapaxes(0, 1)


if __name__ == "__main__":
    main()
