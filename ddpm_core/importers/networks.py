"""The network of a source: its class, its settings, and its weights fitted into it, all or none."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ddpm_core.bundle import build_network, fit_weights
from ddpm_core.errors import InvalidInput
from ddpm_core.importers import shapes
from ddpm_core.importers.answers import Answers
from ddpm_core.importers.found import Choice, Found, choose, is_averaged


@dataclass(frozen=True, eq=False)
class Planned:
    """What is known before the network is built.

    Attributes:
        settings: of the network.
        determined: those that the weights' shapes gave.
        open: settings that nothing determines → what is allowed.
        choice: the weights, where shapes were needed to find them.
    """

    settings: Mapping[str, Any]
    determined: Mapping[str, Any]
    open: Mapping[str, str]
    choice: Choice | None


def plan(found: Found, answers: Answers) -> Planned:
    """Find out which network it is and with which settings.

    Raises:
        InvalidInput: neither the source nor the answers tell.
    """
    if answers.code is not None:
        return Planned(answers.network, {}, {}, None)
    settings = {**found.network, **answers.network}
    choice = choose(found.tensors, [key for names in shapes.LANDMARKS.values() for key in names], found.prefix)
    if choice is not None:
        choice = replace(choice, tensors=shapes.current_names(choice.tensors))
    if "_class_name" in settings:
        _only_known(settings["_class_name"], answers)
        if settings["_class_name"] == "UNet2DModel":
            _refuse_other_tasks(settings, choice, found.source)
        return Planned(settings, {}, {}, choice)
    inferred = shapes.infer(choice.tensors) if choice is not None else None
    if inferred is None:
        names = sorted(found.tensors)
        raise InvalidInput(
            "unknown_network",
            f"The network of {found.source} is not known: its {len(names)} weights are called {', '.join(names[:8])} …"
            f" Known are {', '.join(shapes.LANDMARKS)}; another comes with its code:"
            " --model-file FILE.py --network NAME.",
            field="source",
            allowed=", ".join(shapes.LANDMARKS),
        )
    _only_known(inferred.settings["_class_name"], answers)
    settings = {**inferred.settings, **settings}
    if settings["_class_name"] == "UNet2DModel":
        _refuse_other_tasks(settings, choice, found.source)
    return Planned(settings, inferred.settings, inferred.open, choice)


def build(found: Found, planned: Planned, code: tuple[Path, str] | None) -> tuple[nn.Module, Choice]:
    """Make the network and put its weights in.

    Args:
        found: what the source holds.
        planned: what `plan` gave.
        code: the file to run, which was named, and its class.

    Raises:
        InvalidInput: the settings do not make a network, or the weights do not fit: missing and unexpected keys.
    """
    try:
        network = build_network(planned.settings, code)
    except InvalidInput:
        raise
    except Exception as error:  # whatever somebody else's constructor says
        what = code[1] if code else planned.settings["_class_name"]
        raise InvalidInput(
            "bad_network",
            f"{what} cannot be made with the settings {dict(planned.settings)}: {type(error).__name__}: {error}."
            ' Settings come with --config FILE, as {"network": {…}}.',
            field="config",
        ) from error
    if not isinstance(network, nn.Module):
        raise InvalidInput("bad_network", f"{type(network).__name__} is not a torch.nn.Module.", field="network")
    wanted = network.state_dict()
    if code is None and planned.choice is not None:
        choice = planned.choice
    else:
        choice = choose(found.tensors, wanted, found.prefix) or Choice(found.tensors, "", False)
    if found.prefix is None:
        choice = _averaged_elsewhere(found, network, choice)
    try:
        fit_weights(network, choice.tensors, Path(found.source))
    except InvalidInput as error:
        why = error.message.split(": ", 1)[-1]
        under = f" (found under `{choice.prefix}`)" if choice.prefix else ""
        raise InvalidInput(
            "wrong_checkpoint", f"The weights of {found.source}{under} do not fit the network: {why}", field="source"
        ) from None
    dtypes = {value.dtype for value in choice.tensors.values() if value.is_floating_point()}
    if dtypes in ({torch.float16}, {torch.bfloat16}):
        network.to(dtypes.pop())
    return network, choice


def _averaged_elsewhere(found: Found, network: nn.Module, choice: Choice) -> Choice:
    """Take averaged weights that do not have the network's own names: lists in its order, or names without dots."""
    if choice.ema:
        return choice
    groups: dict[str, dict[str, Tensor]] = {}
    for key, value in found.tensors.items():
        place, _, name = key.rpartition(".")
        if is_averaged(place):
            groups.setdefault(place, {})[name] = value
    parameters = dict(network.named_parameters())
    for place, held in groups.items():
        numbered = {int(name): value for name, value in held.items() if name.isdecimal()}  # diffusers, torch-ema
        in_order = dict(zip(parameters, (numbered[i] for i in sorted(numbered)), strict=False))
        for named in (in_order, *_without_dots(held, parameters)):
            if {key: value.shape for key, value in named.items()} == {key: p.shape for key, p in parameters.items()}:
                return Choice({**choice.tensors, **named}, f"{place}.", True)
    return choice


def _without_dots(held: Mapping[str, Tensor], names: Collection[str]) -> Iterator[dict[str, Tensor]]:
    """Give what is held under the names without their dots, behind any common beginning (LitEma of CompVis)."""
    bare = {name: name.replace(".", "") for name in names}
    first = next(iter(bare.values()), "")
    for lead in (key.removesuffix(first) for key in held if first and key.endswith(first)):
        yield {name: held[lead + key] for name, key in bare.items() if lead + key in held}


def _refuse_other_tasks(settings: Mapping[str, Any], choice: Choice | None, source: str) -> None:
    """Refuse a UNet2DModel that does more than take the noise out of an image of 1 or 3 channels."""
    inside, outside = settings.get("in_channels", 3), settings.get("out_channels", 3)
    tensors = choice.tensors if choice is not None else {}
    embeds = any(key.startswith("class_embedding.") for key in tensors)
    if embeds or settings.get("num_class_embeds") is not None or settings.get("class_embed_type") is not None:
        raise other_task(source, "classes")
    if outside == 2 * inside:
        raise other_task(source, "variance", inside, outside)
    if inside != outside or inside not in (1, 3):
        raise other_task(source, "input", inside, outside)


def explain(network: nn.Module, error: Exception, source: str) -> InvalidInput | None:
    """Say for which other task a network was made that could not make an image; None where nothing tells."""
    weights = network.state_dict()
    if any(re.search("class_emb|label_emb", key) for key in weights):
        return other_task(source, "classes")
    if isinstance(error, TypeError) and "required positional argument" in str(error):
        return other_task(source, "more", str(error).rpartition(": ")[2])
    planes = [value for value in weights.values() if value.ndim == 4]
    inside, outside = (planes[0].shape[1], len(planes[-1])) if planes else (3, 3)
    if outside == 2 * inside:
        return other_task(source, "variance", inside, outside)
    if inside not in (1, 3) and outside in (1, 3):
        return other_task(source, "input", inside, outside)
    return None


def other_task(source: str, what: Literal["classes", "variance", "input", "more"], *given: object) -> InvalidInput:
    """Say which other task a network was trained for."""
    inside, outside = (*given, "", "")[:2]
    code, why = {
        "classes": ("class_embeddings", "it is conditioned on classes (class embeddings)"),
        "variance": (
            "learned_variance",
            f"it predicts {outside} channels for images of {inside}: learned variance (`learned_range`)",
        ),
        "input": (
            "concatenated_input",
            f"it takes {inside} channels and predicts {outside}: its input is concatenated with another picture,"
            " or it works in a latent space",
        ),
        "more": ("conditioned", f"its forward takes more than an image and a time: {inside}"),
    }[what]
    return InvalidInput(
        code,
        f"The network of {source} cannot be served: {why}. What can be is a network that predicts from an image of 1 or"
        " 3 channels and a time alone, with fixed variance.",
        field="source",
    )


def _only_known(name: str, answers: Answers) -> None:
    """Refuse settings by hand that a UNet2DModel would silently ignore."""
    if name != "UNet2DModel":
        return
    from diffusers import UNet2DModel

    known = {*inspect.signature(UNet2DModel.__init__).parameters, "_class_name"} - {"self"}
    for key in answers.network:
        if key not in known:
            allowed = ", ".join(sorted(known))
            raise InvalidInput(
                "unknown_setting", f"{name} has no setting {key}; it has {allowed}.", field=key, allowed=allowed
            )
