import numpy as np
import pytest
import torch
from torch.nn import functional as F

from wsiseg.networks.coordinates import CHANNELS, add_anchor, bounded_offsets, coordinate_channels
from wsiseg.networks.forward import for_inference, pad_to_stride, to_tensor
from wsiseg.networks.fpn import FPN
from wsiseg.networks.resunet import ResNetEncoder, ResUNet, load_encoder


def trained(net):
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return net.eval()


@pytest.fixture
def network():
    torch.manual_seed(0)
    return trained(ResUNet(2, width=0.125))


def test_output_is_as_large_as_the_input(network):
    assert network(torch.rand(2, 3, 64, 96)).shape == (2, 2, 64, 96)


def test_half_width_has_the_size_the_design_says():
    assert sum(p.numel() for p in ResUNet(1, width=0.5).parameters()) == pytest.approx(3.5e6, rel=0.05)


def test_encoder_names_and_shapes_are_torchvisions():
    """Those that torchvision documents for resnet18; a checkpoint with them loads."""
    own = ResUNet(1, depth=18, width=1.0).state_dict()
    expected = {
        "conv1.weight": (64, 3, 7, 7),
        "bn1.running_mean": (64,),
        "layer1.0.conv1.weight": (64, 64, 3, 3),
        "layer2.0.downsample.0.weight": (128, 64, 1, 1),
        "layer2.0.downsample.1.running_var": (128,),
        "layer4.1.conv2.weight": (512, 512, 3, 3),
        "layer4.1.bn2.bias": (512,),
    }
    assert {name: tuple(own[name].shape) for name in expected} == expected


def test_bottlenecks_have_torchvisions_names_and_shapes():
    """Those that torchvision documents for resnet50, and its number of parameters without the last layer."""
    encoder = ResNetEncoder(depth=50)
    own = encoder.state_dict()
    expected = {
        "layer1.0.conv1.weight": (64, 64, 1, 1),
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer2.0.conv2.weight": (128, 128, 3, 3),
        "layer3.5.conv3.weight": (1024, 256, 1, 1),
        "layer4.2.bn3.running_var": (2048,),
    }
    assert {name: tuple(own[name].shape) for name in expected} == expected
    assert sum(p.numel() for p in encoder.parameters()) == 25_557_032 - 2_049_000
    assert encoder.channels == [64, 256, 512, 1024, 2048]
    assert encoder.layer3[0].conv2.stride == (2, 2)


@pytest.fixture
def pyramid():
    torch.manual_seed(0)
    net = FPN(2, depth=50, width=0.125)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return net.eval()


def test_a_pyramid_has_four_levels_and_a_map_of_the_inputs_size(pyramid):
    images = torch.rand(2, 3, 64, 96)
    assert [p.shape[1:] for p in pyramid.pyramid(images)] == [
        (32, 16, 24),
        (32, 8, 12),
        (32, 4, 6),
        (32, 2, 3),
    ]
    assert pyramid(images).shape == (2, 2, 64, 96)


def test_a_fine_level_holds_what_the_coarse_ones_see(pyramid):
    """Each level is the sum of its own lateral convolution and of the coarser level, enlarged."""
    images = torch.rand(1, 3, 64, 64)
    own = [lateral(m) for lateral, m in zip(pyramid.laterals, pyramid.encode(images)[1:], strict=True)]
    levels = pyramid.pyramid(images)
    torch.testing.assert_close(levels[3], own[3])
    for fine in (0, 1, 2):
        enlarged = levels[fine + 1].repeat_interleave(2, 2).repeat_interleave(2, 3)
        torch.testing.assert_close(levels[fine], own[fine] + enlarged)


def test_folding_a_pyramid_changes_nothing(pyramid):
    images = torch.rand(1, 3, 64, 64)
    folded = for_inference(pyramid, "cpu")
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    torch.testing.assert_close(folded(images), pyramid(images), rtol=1e-4, atol=1e-5)


def test_load_encoder_takes_what_fits(network):
    donor = {n: torch.ones_like(w) for n, w in network.state_dict().items() if n.startswith("layer1")}
    assert load_encoder(network, {**donor, "fc.weight": torch.zeros(3)}) == sorted(donor)
    assert (network.state_dict()["layer1.0.conv1.weight"] == 1).all()
    with pytest.raises(ValueError, match="depth and width"):
        load_encoder(network, {"conv1.weight": torch.zeros(1)})


def test_folding_batch_norm_changes_nothing(network):
    images = torch.rand(1, 3, 64, 64)
    folded = for_inference(network, "cpu")
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    torch.testing.assert_close(folded(images), network(images), rtol=1e-4, atol=1e-5)


def test_the_network_commutes_with_shifts_of_its_stride(network):
    image = torch.rand(1, 3, 640, 640)
    whole, shifted = network(image), network(image[..., 32:, 32:])
    middle = slice(300, 310)
    torch.testing.assert_close(
        whole[..., middle, middle], shifted[..., 268:278, 268:278], rtol=1e-3, atol=1e-4
    )


def test_coordinates_of_input_form_repeat_after_a_period_and_do_not_drift():
    near = coordinate_channels("input", (5, 6), (3.0, 4.0), period=512)
    far = coordinate_channels("input", (5, 6), (3.0 + 512 * 400, 4.0 + 512 * 400), period=512)
    assert near.shape == (CHANNELS["input"], 5, 6)
    torch.testing.assert_close(near, far)


def test_coordinates_of_patch_form_span_the_patch():
    channels = coordinate_channels("patch", (3, 5), (1000.0, 1000.0))
    assert channels.shape == (2, 3, 5)
    assert channels[0, :, 0].tolist() == [-1, 0, 1]
    assert coordinate_channels("output", (3, 5), (0, 0)).shape[0] == 0


def test_offsets_are_bounded_and_the_anchor_is_the_position():
    raw = torch.full((1, 4, 2, 3), 100.0)
    offsets = bounded_offsets(raw, 6.0)
    assert offsets[:, :2].max() <= 6
    assert (offsets[:, 2:] == 100).all()
    anchored = add_anchor(torch.full((2, 4), 0.5), torch.tensor([[0, 3], [1, 2]]), 0.15)
    torch.testing.assert_close(anchored, torch.tensor([[0.5, 0.95, 0.5, 0.5], [0.65, 0.8, 0.5, 0.5]]))


@pytest.mark.parametrize("shape", [(64, 64), (50, 33), (1, 1)])
def test_padding_reaches_the_stride_and_is_undone(shape):
    image = np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8)
    padded, inside = pad_to_stride(image, margin=64)
    assert padded.shape[0] % 32 == padded.shape[1] % 32 == 0
    np.testing.assert_array_equal(padded[inside], image)
    assert to_tensor(padded[None]).shape == (1, 3, *padded.shape[:2])
    assert F.relu(to_tensor(padded[None])).max() <= 1


def test_depth_50_has_bottlenecks_named_and_shaped_as_torchvisions():
    encoder = ResNetEncoder(depth=50).state_dict()
    expected = {
        "layer1.0.conv1.weight": (64, 64, 1, 1),
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer2.0.conv1.weight": (128, 256, 1, 1),
        "layer2.0.conv2.weight": (128, 128, 3, 3),
        "layer3.5.conv3.weight": (1024, 256, 1, 1),
        "layer4.2.bn3.bias": (2048,),
    }
    assert {name: tuple(encoder[name].shape) for name in expected} == expected
    # torchvision counts 25,557,032 with the classifier's 2,049,000.
    assert sum(p.numel() for p in ResNetEncoder(depth=50).parameters()) == 25_557_032 - 2_049_000


def test_folding_batch_norm_into_bottlenecks_changes_nothing():
    torch.manual_seed(0)
    network = trained(ResUNet(2, depth=50, width=0.25))
    images = torch.rand(1, 3, 64, 64)
    folded = for_inference(network, "cpu")
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    torch.testing.assert_close(folded(images), network(images), rtol=1e-4, atol=1e-5)
