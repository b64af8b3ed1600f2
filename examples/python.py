# python.py - rp.h from Python, as a shared library, by ctypes and numpy.
#
#     cc -O2 -shared -fPIC -DRP_IMPLEMENTATION -x c rp.h -o librp.so -lm && python3 examples/python.py
#
# The structures are those of the header, field by field: change them together with it.
import ctypes
from ctypes import POINTER, byref, c_char_p, c_float, c_int, c_int64, c_uint64, c_void_p
import numpy as np

def structure(name, **fields):
    return type(name, (ctypes.Structure,), {"_fields_": list(fields.items())})

Optimizer = structure("rp_optimizer", method=c_int, rate=c_float, rate_decay=c_float, rate_decay_steps=c_int,
    weight_decay=c_float, decoupled=c_int, clip=c_float, cubic_sigma=c_float, cubic_adaptive=c_int, momentum=c_float,
    nesterov=c_int, curvature_average=c_float, damping=c_float, rule=c_int * 3, beta1=c_float, beta2=c_float, rho=c_float,
    epsilon=c_float, variable_sigma=c_float, lambda_=c_float, full_hessian=c_int, iterations=c_int, tolerance=c_float)
Data = structure("rp_data", inputs=c_void_p, targets=c_void_p, labels=c_void_p, weights=c_void_p, count=c_int,
    inputs_width=c_int, targets_width=c_int, fill=c_void_p, user=c_void_p)
FitOptions = structure("rp_fit_options", epochs=c_int, batch=c_int, keep_order=c_int, seed=c_uint64,
    validation=POINTER(Data), patience=c_int, keep_best=c_int, checkpoint=c_char_p, checkpoint_steps=c_int, anew=c_int,
    progress=c_void_p, schedule=c_void_p, user=c_void_p)
Score = structure("rp_score", loss=c_float, accuracy=c_float, count=c_int64)

rp = ctypes.CDLL("./librp.so")
rp.rp_partitioning.restype = Optimizer
rp.rp_net_text.restype, rp.rp_net_text.argtypes = c_void_p, (c_char_p, c_void_p)
rp.rp_net_build.argtypes = c_void_p, c_int, c_uint64
rp.rp_fit.argtypes = c_void_p, POINTER(Optimizer), POINTER(Data), POINTER(FitOptions), c_void_p
rp.rp_evaluate.argtypes = c_void_p, POINTER(Data), POINTER(Score), c_void_p
rp.rp_probabilities.argtypes = c_void_p, c_void_p, c_int, c_void_p
rp.rp_save.argtypes = c_void_p, c_char_p
rp.rp_outputs.argtypes = rp.rp_error.argtypes = rp.rp_net_free.argtypes = (c_void_p,)
rp.rp_error.restype = c_char_p

class Net:
    def __init__(self, text, batch=100, seed=1):
        self.net = rp.rp_net_text(text.encode(), None)
        self.call(rp.rp_net_build, batch, seed)
    def __del__(self):
        rp.rp_net_free(self.net)
    def call(self, function, *arguments):
        if function(self.net, *arguments): raise RuntimeError(rp.rp_error(self.net).decode())
    @staticmethod
    def data(x, labels): # the arrays must outlive it
        assert x.dtype == np.float32 and labels.dtype == np.int32 and x.flags.c_contiguous and len(x) == len(labels)
        return Data(inputs=x.ctypes.data, labels=labels.ctypes.data, count=len(x), inputs_width=x.shape[1])
    def fit(self, x, labels, epochs): # without a rate
        self.call(rp.rp_fit, rp.rp_partitioning(), self.data(x, labels), FitOptions(epochs=epochs), None)
    def score(self, x, labels):
        score = Score()
        self.call(rp.rp_evaluate, self.data(x, labels), byref(score), None)
        return score.loss, score.accuracy
    def probabilities(self, x):
        x, out = np.ascontiguousarray(x, np.float32), np.empty((len(x), rp.rp_outputs(self.net)), np.float32)
        self.call(rp.rp_probabilities, x.ctypes.data, len(x), out.ctypes.data)
        return out

def spirals(count, random): # two arms, a class each
    radius, labels = np.sqrt(random.random(count)), random.integers(0, 2, count, dtype=np.int32)
    angle = 7 * radius + np.pi * labels
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).astype(np.float32), labels

random = np.random.default_rng(1)
net = Net("input vector 2; dense 32; tanh; dense 32; tanh; dense 2; loss softmax_cross_entropy")
net.fit(*spirals(4000, random), epochs=30)
x, labels = spirals(1000, random)
loss, accuracy = net.score(x, labels)
print(f"loss {loss:.4f}, {100 * accuracy:.1f}% of new points right; the first: {net.probabilities(x[:1])[0]}")
net.call(rp.rp_save, b"python.safetensors")
assert accuracy > 0.97 and (net.probabilities(x).argmax(1) == labels).mean() == np.float32(accuracy)
