"""A network in training: one optimizer step is a function of the state and the step's number."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from numpy.typing import NDArray
from torch import Tensor, nn

from ddpm_core.bundle import Bundle, fit_weights
from ddpm_core.cascade import CascadedUNet
from ddpm_core.data.stream import Stream
from ddpm_core.errors import InvalidInput
from ddpm_core.training import checkpoint, machine, samples
from ddpm_core.training.averages import Averages
from ddpm_core.training.critic import load_critic
from ddpm_core.training.ema import Ema
from ddpm_core.training.networks import build
from ddpm_core.training.objective import Objective, emphasis, timestep_shares
from ddpm_core.training.optimizer import make_optimizer
from ddpm_core.training.realism import Realism
from ddpm_core.training.recipe import Decay, Recipe
from ddpm_core.training.teacher import Teacher, TwoTeachers, load_teacher, shares

MAX_VALIDATION_IMAGES = 512
_STEP_SEEDS, _VALIDATION_SEED, _SEEDS = 2**32, 2**63, 2**64
_SPREAD = 0x9E3779B1  # odd, so all seeds differ


@dataclass
class Progress:
    """Where a run stands.

    Attributes:
        step: optimizer steps made.
        images: images seen, which is also the position in the stream.
        best: lowest validation loss so far.
        stale: validations since then.
        seconds: time spent training, over all sittings.
    """

    step: int = 0
    images: int = 0
    best: float = math.inf
    stale: int = 0
    seconds: float = 0.0


def learning_rate(recipe: Recipe, step: int) -> float:
    """Give the learning rate of step 0..steps−1: linear warm-up, a plateau, then the decay over the last share."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    start = recipe.steps * (1 - recipe.decay_share)
    if recipe.decay is Decay.NONE or step <= start:
        return recipe.learning_rate
    done = min(1.0, (step - start) / (recipe.steps - start))
    return recipe.learning_rate * (1 - done if recipe.decay is Decay.LINEAR else (1 + math.cos(math.pi * done)) / 2)


class Trainer:
    """One network in training on one stream of images; `loop.run` calls its methods in turn.

    Args:
        recipe: the settings.
        described: the bundle that it will be.
        accelerator: the device, and the other processes when there are several.
        training, held_back: the images.
        write_bundle: writes the averaged network as a bundle into a folder.
    """

    def __init__(
        self,
        recipe: Recipe,
        described: Bundle,
        accelerator: Accelerator,
        training: Stream,
        held_back: Stream,
        write_bundle: Callable[[Path, nn.Module, Progress], None],
    ) -> None:
        world = accelerator.num_processes
        if recipe.batch % (world * recipe.accumulate):
            raise InvalidInput(
                "out_of_range",
                f"batch = {recipe.batch} cannot be shared by {world} processes × accumulate = {recipe.accumulate}.",
                field="batch",
                given=recipe.batch,
                allowed=f"a multiple of {world * recipe.accumulate}",
            )
        self.recipe, self.accelerator, self.training, self.held_back = recipe, accelerator, training, held_back
        self._write_bundle = write_bundle
        self.progress = Progress()
        self.described = described
        set_seed(recipe.seed)
        torch.backends.cudnn.benchmark = True  # shapes never change
        self.network = build(recipe).to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = Ema(self.network, recipe.ema_half_life, recipe.ema_ramp)
        self.model, self.optimizer = accelerator.prepare(self.network, make_optimizer(recipe, self.network))
        self.forward = self.model
        if recipe.compile and not machine.missing_to_compile(accelerator.device):
            self.forward = torch.compile(self.model)
        self.objective = Objective(
            self.described.schedule,
            recipe.prediction,
            loss=recipe.loss,
            min_snr=recipe.min_snr,
            stratified=recipe.stratified,
            shares=timestep_shares(described.schedule.sigma_256(recipe.image_size), recipe.focus, recipe.focus_sigma),
            patch=recipe.patch,
            bands=described.manifest.bands,
            detail=recipe.detail,
            emphasis=emphasis(described.network_shape[1], recipe.emphasis) if recipe.emphasis != 1 else None,
            teacher=self._teacher(),
        ).to(accelerator.device)
        sigma = described.schedule.sigma_256(recipe.image_size)[1:]
        self._log_sigma = torch.from_numpy(np.log(sigma)).to(accelerator.device)
        self.realism = self._realism()
        self.averages = self._averages()

    def _averages(self) -> Averages | None:
        teacher = self.objective.teacher
        if not self.recipe.averages or not isinstance(teacher, Teacher):
            return None
        return Averages(self.objective, teacher, self._log_sigma)

    def _realism(self) -> Realism | None:
        recipe, described, accelerator = self.recipe, self.described, self.accelerator
        if not recipe.critic:
            return None
        if accelerator.num_processes > 1:
            message = f"{accelerator.num_processes} processes cannot train one critic; start one."
            raise InvalidInput("out_of_range", message, field="critic", given=recipe.critic, allowed="one process")
        return Realism(
            self.objective,
            load_critic(Path(recipe.critic), described, accelerator.device, compiled=self.forward is not self.model),
            self._log_sigma,
            perceptual=recipe.perceptual,
            adversarial=recipe.adversarial,
            rollout=recipe.rollout,
            sampler=recipe.sampler,
        )

    @property
    def best_by_loss(self) -> bool:
        """Whether held-back images say which step is the best; with a critic or with means it is the last one."""
        return len(self.held_back) > 0 and self.realism is None and self.averages is None

    def _loss(self, x0: Tensor) -> Tensor:
        if self.realism is not None:
            with self.accelerator.autocast():
                return self.realism.loss(self.forward, x0, self.progress.step)
        if self.averages is not None:
            return self.averages.loss(self.forward, x0)
        loss: Tensor = self.objective(self.forward, x0, self.objective.timesteps(len(x0))).mean()
        return loss

    def _teacher(self) -> Teacher | TwoTeachers | None:
        recipe, described = self.recipe, self.described
        dtype = torch.float32 if self.accelerator.mixed_precision == "no" else torch.bfloat16

        def load(field: str) -> Teacher:
            path = Path(getattr(recipe, field))
            return load_teacher(path, recipe.teacher_guide, described, self.accelerator.device, dtype, field=field)

        if not recipe.teacher:
            return None
        if not recipe.fine_teacher:
            return load("teacher")
        share = shares(described.schedule.sigma_256(recipe.image_size), recipe.teacher_sigma)
        return TwoTeachers(load("teacher"), load("fine_teacher"), share)

    def begin_with(self, bundle: Bundle) -> None:
        """Begin with the weights of a bundle, for the raw network and the averaged one.

        With bands a model of half the side will do: it is the coarse band's, and detail begins with nought. In a
        cascade it is the coarse network, and the one for detail begins with what it sees in a picture. Without bands
        a cascade of twice the side will do: its coarse network is taken.

        Raises:
            InvalidInput: another network, or one that was trained to predict something else.
        """
        manifest, recipe = bundle.manifest, self.recipe
        for key, theirs in (("prediction", manifest.prediction_type), ("patch", manifest.patch)):
            if getattr(recipe, key) != theirs:
                raise InvalidInput(
                    "other_model",
                    f"init = {bundle.path} has {key} {theirs}, the recipe says {getattr(recipe, key)}.",
                    field="init",
                    given=theirs,
                    allowed=getattr(recipe, key),
                )
        network, bands = bundle.load_network(), self.described.manifest.bands
        if isinstance(network, CascadedUNet) and bands is None:
            network = network.coarse
        weights = network.state_dict()
        if bands is not None and manifest.bands is None:
            weights = self._enlarged(weights, bundle)
        for each in (self.network, self.ema.network):
            fit_weights(each, weights, bundle.path)

    def _enlarged(self, weights: Mapping[str, Tensor], bundle: Bundle) -> dict[str, Tensor]:
        """Give the weights of a model of half the side to the coarse band, and nought to detail.

        Raises:
            InvalidInput: the model has another side.
        """
        side = self.recipe.image_size // 2
        if bundle.manifest.image_size != side:
            raise InvalidInput(
                "other_model",
                f"init = {bundle.path} makes pictures of {bundle.manifest.image_size} px; bands begin with {side} px.",
                field="init",
                given=bundle.manifest.image_size,
                allowed=str(side),
            )
        coarse, every = bundle.network_shape[0], self.described.network_shape[0]
        widths = {every}
        if isinstance(self.network, CascadedUNet):
            widths = {every + coarse, every - coarse}
            weights = {f"{part}.{key}": weight for part in ("coarse", "detail") for key, weight in weights.items()}
        wanted, larger = self.network.state_dict(), {}
        for key, weight in weights.items():
            shape = wanted[key].shape if key in wanted else weight.shape
            fits = len(shape) == len(weight.shape) and all(
                ours == theirs or (theirs == coarse and ours in widths)
                for ours, theirs in zip(shape, weight.shape, strict=True)
            )
            larger[key] = weight.new_zeros(shape) if fits else weight
            if not key.startswith("detail.conv_out"):
                larger[key][tuple(slice(size) for size in weight.shape)] = weight
        return larger

    def load(self, folder: Path) -> None:
        """Take up the state of a checkpoint.

        Raises:
            InvalidInput: it belongs to another network.
        """
        weights, averaged, state = checkpoint.load(folder)
        fit_weights(self.network, weights, folder)
        fit_weights(self.ema.network, averaged, folder)
        self.optimizer.load_state_dict(state["optimizer"])
        for group in self.optimizer.param_groups:  # the recipe may have been changed since
            group.update(betas=self.recipe.betas, weight_decay=self.recipe.weight_decay)
        if self.accelerator.scaler is not None and state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        if self.realism is not None and state.get("critic"):
            self.realism.critic.load(state["critic"])
        self.progress = Progress(**state["progress"])

    def save(self, run: Path, *, best: bool) -> None:
        """Write a checkpoint of this step into the run's folder.

        Raises:
            InvalidInput: weights that are not finite; nothing is written.
            OSError: it could not be written; the former checkpoint stays.
        """
        if not all(value.isfinite().all() for value in self.network.state_dict().values()):
            raise diverged(self.progress.step)
        state = {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else {},
            "critic": self.realism.critic.state() if self.realism is not None else {},
            "progress": asdict(self.progress),
        }
        checkpoint.save(run, self.progress.step, self.snapshot, self.network, state, best=best)

    def snapshot(self, folder: Path) -> None:
        """Write the averaged network of this step as a bundle into `folder`.

        Raises:
            OSError: it could not be written.
        """
        self._write_bundle(folder, self.ema.network, self.progress)

    @torch.no_grad()
    def validate(self) -> float:
        """Give the averaged network's loss on held-back images: the same images, noise and timesteps every time."""
        count = min(len(self.held_back), MAX_VALIDATION_IMAGES)
        size = max(1, min(count, self.recipe.batch // self.accelerator.num_processes // self.recipe.accumulate))
        total = torch.zeros((), device=self.accelerator.device)
        for start in range(0, count, size):
            torch.manual_seed(_VALIDATION_SEED + start)
            x0 = self.held_back.images(self.held_back.indices[start : min(start + size, count)])
            with self.accelerator.autocast():
                total += self.objective(self.ema.network, x0, self.objective.timesteps(len(x0))).sum()
        return float(total) / count

    def samples(self) -> NDArray[np.uint8]:
        """Sample the averaged network: the same seeds every time, as a grid (H, W, 3)."""
        dtype = torch.bfloat16 if self.accelerator.mixed_precision == "bf16" else torch.float32
        seeds = range(self.recipe.samples)
        return samples.grid(self.described, self.ema.network, seeds, self.accelerator.device, dtype)

    def step(self) -> Tensor:
        """Make one optimizer step; give (loss, gradient norm, 1) on the device."""
        recipe, accelerator, progress = self.recipe, self.accelerator, self.progress
        rate = learning_rate(recipe, progress.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        parts = accelerator.num_processes * recipe.accumulate
        count = recipe.batch // parts
        total = torch.zeros((), device=accelerator.device)
        self.model.train()
        for i in range(recipe.accumulate):
            part = accelerator.process_index * recipe.accumulate + i
            # All randomness of a step comes from its number: nothing has to be remembered to resume exactly.
            number = ((recipe.seed * _STEP_SEEDS + progress.step) * parts + part) % _SEEDS
            torch.manual_seed(number ^ (recipe.seed * _SPREAD % _STEP_SEEDS))  # a CPU takes the lower 32 bits alone
            x0 = self.training.batch(progress.images + part * count, count)
            last = i == recipe.accumulate - 1
            with contextlib.nullcontext() if last else accelerator.no_sync(self.model):
                loss = self._loss(x0) / recipe.accumulate
                accelerator.backward(loss)
            total += loss.detach()
        if recipe.clip:
            norm = accelerator.clip_grad_norm_(self.model.parameters(), recipe.clip)
        else:
            norm = torch.zeros((), device=accelerator.device)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.realism is not None:
            self.realism.learn()
        progress.step += 1
        progress.images += recipe.batch
        self.ema.update(self.network, recipe.batch, progress.images)
        return torch.stack([total, norm, torch.ones_like(total)])


def diverged(step: int) -> InvalidInput:
    """Make the error for a run whose numbers are no longer finite."""
    return InvalidInput(
        "diverged",
        f"The loss or the weights are not finite at step {step}; the last checkpoint is from before."
        " Resume with a lower learning_rate, a longer warmup or precision=float32.",
        field="learning_rate",
    )
