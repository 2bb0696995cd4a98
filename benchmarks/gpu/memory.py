"""All four backbones on one card: what they take, and what is left for batches.

python -m benchmarks.gpu.memory --json out/gpu
"""

import torch

from benchmarks.gpu.report import Report
from benchmarks.gpu.setting import WHOLE, Setting, main
from benchmarks.gpu.timing import forget_peak


def run(setting: Setting) -> Report:
    """Measure, and keep figures as they come."""
    report = setting.report("memory")
    models = setting.model_set(WHOLE)
    forget_peak()
    networks = setting.networks(models)
    for name, module in networks.modules().items():
        tensors = {t.data_ptr(): t.nbytes for t in [*module.parameters(), *module.buffers()]}
        report.add(**{f"{name}_gb": sum(tensors.values()) / 1e9})
    report.count(networks=len(networks.modules()))
    if torch.cuda.is_available() and setting.device == "cuda":
        free, total = torch.cuda.mem_get_info()
        report.add(
            allocated_gb=torch.cuda.memory_allocated() / 1e9,
            context_gb=(total - free - torch.cuda.memory_reserved()) / 1e9,
            free_gb=free / 1e9,
            total_gb=total / 1e9,
        )
    return report


if __name__ == "__main__":
    main(run)
