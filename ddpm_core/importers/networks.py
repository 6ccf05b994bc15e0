"""The network of a source: its class, its settings, and its weights fitted into it, all or none."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddpm_core.bundle import build_network, fit_weights
from ddpm_core.errors import InvalidInput
from ddpm_core.importers import shapes
from ddpm_core.importers.answers import Answers
from ddpm_core.importers.found import Choice, Found, choose


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
    choice = choose(found.tensors, [key for names in shapes.LANDMARKS.values() for key in names])
    if choice is not None:
        choice = replace(choice, tensors=shapes.current_names(choice.tensors))
    if "_class_name" in settings:
        _only_known(settings["_class_name"], answers)
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
    return Planned({**inferred.settings, **settings}, inferred.settings, inferred.open, choice)


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
        choice = choose(found.tensors, wanted) or Choice(found.tensors, "", False)
    choice = _averaged_list(found, network, choice)
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


def _averaged_list(found: Found, network: nn.Module, choice: Choice) -> Choice:
    """Take diffusers' own averaged weights, a list without names in the order of the parameters, where there is one."""
    if choice.ema:
        return choice
    lists: dict[str, dict[int, Tensor]] = {}
    for key, value in found.tensors.items():
        place, _, number = key.rpartition(".")
        if place.endswith("shadow_params") and number.isdecimal():
            lists.setdefault(place, {})[int(number)] = value
    parameters = dict(network.named_parameters())
    for place, numbered in lists.items():
        averaged = [numbered[i] for i in sorted(numbered)]
        if [value.shape for value in averaged] == [value.shape for value in parameters.values()]:
            named = dict(zip(parameters, averaged, strict=True))
            return Choice({**choice.tensors, **named}, f"{place}.", True)
    return choice


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
