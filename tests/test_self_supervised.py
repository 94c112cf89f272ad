"""The self-supervised start, and encoders that somebody else trained."""

import numpy as np
import pytest
import torch

from wsiseg.errors import ConfigError
from wsiseg.losses import count_ranking_loss, scale_triplet_loss
from wsiseg.networks.pretrained import DEVIATION, with_encoder
from wsiseg.networks.resunet import ResUNet
from wsiseg.recipes._self_supervised import RankingNetwork, part_of, quarters, ranking_loss


def test_triplet_loss_by_hand():
    anchor, positive, negative = (torch.tensor([[x, 0.0]]) for x in (0.0, 1.0, 3.0))
    assert scale_triplet_loss(anchor, positive, negative) == 0  # 1 - 9 + 1 < 0
    assert scale_triplet_loss(anchor, negative, positive) == 9 - 1 + 1


def test_ranking_loss_by_hand():
    assert count_ranking_loss(torch.tensor([3.0, 0.0]), torch.tensor([1.0, 0.5])) == (0 + 1.5) / 2


def test_an_anchor_lies_beside_its_positive():
    image = torch.arange(16.0).reshape(1, 1, 4, 4).expand(1, 3, 4, 4)
    anchors, positives = quarters(image)
    assert anchors[:, 0, 0, 0].tolist() == [0, 10]
    assert positives[:, 0, 0, 0].tolist() == [2, 8]


def test_a_part_is_enlarged_to_the_whole():
    image = torch.rand(1, 3, 48, 48)
    part = part_of(image, np.random.default_rng(0))
    assert part.shape == image.shape
    assert part.min() >= image.min()
    assert part.max() <= image.max()


def test_it_learns_where_there_are_more_discs():
    """Discs of one size on a grid: a part has larger and fewer ones. The order is learned within a few steps."""
    torch.manual_seed(0)
    y, x = torch.meshgrid(torch.arange(192), torch.arange(192), indexing="ij")
    discs = ((y % 16 - 8) ** 2 + (x % 16 - 8) ** 2 < 25).float()
    images = (0.9 - 0.5 * discs).expand(2, 3, 192, 192)
    network = RankingNetwork(width=0.25)
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    losses = []
    for step in range(12):
        loss = ranking_loss(network, images, torch.empty(0), np.random.default_rng(step))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert np.mean(losses[-3:]) < 0.5 * np.mean(losses[:3])


@pytest.fixture
def checkpoint(tmp_path):
    """A ResNet's state dict as torchvision saves one, at the width of the test network."""
    torch.manual_seed(1)
    names = RankingNetwork(width=0.25).state_dict()
    torch.save(
        {n: w for n, w in names.items() if not n.startswith(("features", "count"))}, tmp_path / "r.pth"
    )
    return tmp_path / "r.pth"


def test_a_checkpoint_becomes_the_encoder(checkpoint):
    network = with_encoder(lambda: ResUNet(1, width=0.25), str(checkpoint))
    given = torch.load(checkpoint, weights_only=True)
    own = network.state_dict()
    assert torch.equal(own["layer3.0.conv1.weight"], given["layer3.0.conv1.weight"])
    scaled = given["conv1.weight"] / torch.tensor(DEVIATION)[:, None, None]
    assert torch.equal(own["conv1.weight"], scaled)


def test_a_url_is_fetched(checkpoint, monkeypatch):
    asked = []

    def fetch(url, *, map_location, weights_only):
        asked.append((url, weights_only))
        return {"state_dict": torch.load(checkpoint, weights_only=True)}

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", fetch)
    with_encoder(lambda: ResUNet(1, width=0.25), "https://example.org/r.pth")
    assert asked == [("https://example.org/r.pth", True)]


def test_what_is_no_checkpoint_is_named(tmp_path, checkpoint):
    def build():
        return ResUNet(1, width=0.5)

    with pytest.raises(ConfigError, match=r"absent\.pth.*cannot be read"):
        with_encoder(build, str(tmp_path / "absent.pth"))
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(ConfigError, match=r"text\.pth.*cannot be read"):
        with_encoder(build, str(tmp_path / "text.pth"))
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ConfigError, match="holds no weights by name"):
        with_encoder(build, str(tmp_path / "list.pth"))
    torch.save({"other": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ConfigError, match="depth and width must agree"):
        with_encoder(build, str(tmp_path / "other.pth"))
