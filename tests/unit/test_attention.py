"""The products that take the place of torch's fused attention on CPUs in bfloat16 answer as that
does.
"""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from particleforge.model import attention


def random_call(n: int, mask_heads: int, *, seed: int = 0) -> list[torch.Tensor]:
    """Return query, key, value [2, 3, n, 16] that ask for gradients, and a mask that hides the last
    third of the keys.
    """
    generator = torch.Generator().manual_seed(seed)
    parts = [
        torch.randn(2, 3, n, 16, generator=generator).bfloat16().requires_grad_() for _ in range(3)
    ]
    mask = torch.randn(2, mask_heads, n, n, generator=generator)
    mask[..., n - n // 3 :] = attention.MASKED_SCORE
    return [*parts, mask.bfloat16()]


@pytest.mark.parametrize("mask_heads", [1, 3])
@pytest.mark.parametrize("n", [1, 2, 33])
def test_plain_products_equal_the_fused_kernel(n, mask_heads):
    *parts, mask = random_call(n, mask_heads)
    exact = [part.detach().float().requires_grad_() for part in parts]
    wanted = scaled_dot_product_attention(*exact, attn_mask=mask.float())
    found = attention.attend(*parts, mask, 0.0)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), wanted, atol=0.02, rtol=0.02)
    weights = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(1))
    (wanted * weights).sum().backward()
    (found.float() * weights).sum().backward()
    for part, reference in zip(parts, exact, strict=True):
        torch.testing.assert_close(part.grad.float(), reference.grad, atol=0.05, rtol=0.05)


def test_masked_keys_have_no_weight():
    query, key, value, mask = random_call(12, 1)
    found = attention.attend(query, key, value, mask, 0.0)
    with torch.no_grad():
        key[:, :, -4:], value[:, :, -4:] = 50.0, 50.0
    assert torch.equal(found, attention.attend(query, key, value, mask, 0.0))


def test_long_events_do_not_store_their_scores(monkeypatch):
    calls = []
    monkeypatch.setattr(
        attention.functional,
        "scaled_dot_product_attention",
        lambda *args, **kwargs: calls.append(args) or args[0],
    )
    for n in (attention._PLAIN_LENGTH_MAX, attention._PLAIN_LENGTH_MAX + 1):
        query = torch.zeros(1, 1, n, 2, dtype=torch.bfloat16)
        attention.attend(query, query, query, torch.zeros(1, 1, n, n, dtype=torch.bfloat16), 0.0)
    assert len(calls) == 1


def test_dropout_removes_and_rescales_shares():
    query, key, value, mask = random_call(20, 1)
    torch.manual_seed(3)
    with torch.no_grad():
        mean = torch.stack(
            [
                attention.attend(query, key, torch.ones_like(value), mask, 0.5).float().mean()
                for _ in range(20)
            ]
        ).mean()
    assert mean == pytest.approx(1, abs=0.1)
    assert not torch.equal(
        attention.attend(query, key, value, mask, 0.5),
        attention.attend(query, key, value, mask, 0.0),
    )
