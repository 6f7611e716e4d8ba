"""Read states from a running model by hooks: every wanted site in one forward pass, and no block more than needed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from superactivators.errors import ModelError
from superactivators.models.layers import site_name, site_place


class _DeepEnough(Exception):  # noqa: N818  (control flow, never seen by users)
    """Raised inside the deepest wanted hook, so that the blocks behind it are not run."""


@final
class ForwardRunner:
    """Runs a model and hands the states of the wanted sites to a function, in the order in which they arise.

    Parameters
    ----------
    model : nn.Module
        A transformers base model; its output has ``last_hidden_state``.
    blocks : sequence of nn.Module
        Its transformer blocks, in order.
    width : int
        Width that every state must have.
    final : function of the model's output
        Gives the states of the site ``final_norm``.

    Attributes
    ----------
    accepts : frozenset of str
        Names of the arguments that the model's ``forward`` takes.
    """

    def __init__(
        self,
        model: nn.Module,
        blocks: Sequence[nn.Module],
        width: int,
        final: Callable[[Any], Tensor] = lambda output: output.last_hidden_state,
    ) -> None:
        self._model = model
        self._blocks = list(blocks)
        self._width = width
        self._final = final
        self.accepts = frozenset(inspect.signature(model.forward).parameters)

    def run(
        self,
        inputs: Mapping[str, Any],
        sites: Sequence[str],
        receive: Callable[[str, Float[Tensor, "batch seq d"]], None],
        *,
        stop_early: bool = True,
        gradients: bool = False,
    ) -> Any:
        """Run one forward pass.

        Parameters
        ----------
        inputs : mapping
            Keyword arguments of the model's ``forward``, on its device.
        sites : sequence of str
            Site names; none of them means a plain forward pass without any hook.
        receive : function of (site, states)
            Called once for every site, inside the forward pass. It must copy what it wants to keep: the model may
            go on to overwrite the tensor.
        stop_early : bool
            Leave out the blocks behind the deepest wanted one.
        gradients : bool
            Record the pass, so that states can be differentiated.

        Returns
        -------
        The model's output, or None if the pass was stopped early.

        Raises
        ------
        ModelError
            If a site did not arise exactly once, or is not a float tensor of shape (batch, sequence, width).
        """
        n_blocks = len(self._blocks)
        fired = dict.fromkeys(sites, 0)
        places = {site_place(site, n_blocks) for site in sites}
        deepest = max(places, default=n_blocks)
        stops = stop_early and deepest < n_blocks

        def hand_over(place: int, value: Any) -> Any:
            site = site_name(place, n_blocks)
            fired[site] += 1
            state = self._checked(value, site)
            receive(site, state)
            if stops and place == deepest:
                raise _DeepEnough
            return _through(value, state) if gradients else value

        def before_first(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if args:
                return (hand_over(-1, args[0]), *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": hand_over(-1, kwargs.get("hidden_states"))}

        def after(place: int) -> Callable[[nn.Module, tuple[Any, ...], Any], Any]:
            return lambda module, args, output: hand_over(place, output)

        handles = []
        output: Any = None
        try:
            for place in places - {n_blocks}:
                if place == -1:
                    handles.append(self._blocks[0].register_forward_pre_hook(before_first, with_kwargs=True))
                else:
                    handles.append(self._blocks[place].register_forward_hook(after(place)))
            with torch.enable_grad() if gradients else torch.inference_mode():
                output = self._model(**inputs)
        except _DeepEnough:
            pass
        finally:
            for handle in handles:
                handle.remove()
        if n_blocks in places:
            hand_over(n_blocks, self._final(output))
        wrong = [f"{site} {times} times" for site, times in fired.items() if times != 1]
        if wrong:
            raise ModelError(
                f"{type(self._model).__name__}: every site must arise once in a forward pass, but {', '.join(wrong)}; "
                "this model does not run its blocks one after the other and cannot be used"
            )
        return output

    def _checked(self, value: Any, site: str) -> Float[Tensor, "batch seq d"]:
        """Take the states out of what a block returns: a tensor, or a tuple that begins with it.

        Towers that pack all images into one sequence give it without a batch.
        """
        state = value[0] if isinstance(value, tuple) and value else value
        if isinstance(state, Tensor) and state.ndim == 2:
            state = state[None]
        if (
            not isinstance(state, Tensor)
            or not state.is_floating_point()
            or state.ndim != 3
            or state.shape[-1] != self._width
        ):
            shape = tuple(state.shape) if isinstance(state, Tensor) else type(state).__name__
            raise ModelError(
                f"{type(self._model).__name__}: {site} gives {shape} where a float tensor of shape "
                f"(batch, sequence, {self._width}) was expected; this model cannot be used"
            )
        return state


def _through(value: Any, state: Float[Tensor, "batch seq d"]) -> Any:
    """Let the model go on from the state as it was handed over, so that it can be differentiated by."""
    first = value[0] if isinstance(value, tuple) else value
    if first.ndim == state.ndim:
        return value
    return (state[0], *value[1:]) if isinstance(value, tuple) else state[0]
