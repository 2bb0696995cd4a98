import pytest

from farm.methods.edit_infinity.config import (
    EditInfinityConfig,
    paper,
    reference_switches,
    scenes,
    tiny,
)
from farm.requests.edit_infinity import EditInfinityParameters


def test_paper_is_the_published_settings():
    config = paper()
    assert config.prompt.train_textembedding_iter == 10
    assert config.lora.train_lora_iter == 20
    assert (config.lora.lora_r, config.lora.lora_alpha, config.lora.lora_dropout) == (4, 32, 0.1)
    optimiser = config.prompt.optimiser
    assert optimiser.learning_rate == pytest.approx(6e-3 * 2 / 256)
    assert (optimiser.beta1, optimiser.beta2, optimiser.weight_decay) == (0.9, 0.97, 0.005)
    assert (config.editing.guidance, config.editing.tau, config.editing.threshold) == (4, 0.5, 0.5)
    assert config.attention_bias


def test_every_switch_of_the_examples_is_a_parameter():
    switches = {
        "train_textembedding",
        "train_textembedding_iter",
        "use_textembedding",
        "use_textembedding_iter",
        "train_lora",
        "train_lora_iter",
        "infer_function",
        "use_concat_embedding",
        "use_embedding_iter",
        "use_lora",
        "use_lora_iter",
        "threshold",
    }
    assert switches <= set(EditInfinityParameters.model_fields)
    zeros = EditInfinityParameters(train_lora=0, use_concat_embedding=1)
    assert zeros.train_lora is False
    assert zeros.use_concat_embedding is True


def test_every_parameter_reaches_the_configuration():
    values = {
        "infer_function": 1,
        "kernel": "paper",
        "negative_prompt": "dull",
        "cfg_insertion": -2,
        "threshold": 0.3,
        "grow": 0.25,
        "large_threshold": 0.35,
        "tau": 0.7,
        "top_p": 0.8,
        "lora_dropout": 0.3,
        "lora_alpha": 7.0,
    }
    for name in EditInfinityParameters.model_fields:
        if name == "reference":
            continue
        kind = str(EditInfinityParameters.model_fields[name].annotation)
        before = scenes()
        value = values.get(name, "bool" in kind and not flat(before).get(name, False))
        value = 13 if value is False and "int" in kind else value
        value = 0.5 if name == "learning_rate" else value
        value = 9.0 if name == "guidance" else value
        after = before.with_parameters(EditInfinityParameters(**{name: value}))
        assert flat(after)[name] == value, name
        assert len(differences(before, after)) <= 2, name  # both optimisers have a rate


def flat(config):
    fields = config.model_dump()
    whole = {n: v for n, v in fields.items() if not isinstance(v, dict)}
    rate = {"learning_rate": fields["lora"]["optimiser"]["learning_rate"]}
    return whole | fields["prompt"] | fields["lora"] | fields["editing"] | rate


def differences(before, after):
    def leaves(value, path=()):
        if isinstance(value, dict):
            return {k: v for n, x in value.items() for k, v in leaves(x, (*path, n)).items()}
        return {path: value}

    one, other = leaves(before.model_dump()), leaves(after.model_dump())
    return {path for path in one if one[path] != other[path]}


def test_nothing_set_changes_nothing():
    assert scenes().with_parameters(EditInfinityParameters()) == scenes()


def test_reference_sets_each_quirk_and_what_is_asked_for_stays():
    config = paper().with_parameters(EditInfinityParameters(reference=True, kernel="paper"))
    assert not config.attention_bias
    assert config.off_by_one
    assert config.last_occurrence
    assert config.editing.plotted_mask
    assert config.editing.kernel == "paper"
    for noise in (config.prompt.noise, config.lora.noise):
        assert (noise.condition_dropout, noise.drop_path) == (0.1, 0.1)
    assert config.updates(10) == 9
    assert reference_switches(paper()).updates(50) == 49


def test_iterations_that_can_be_used_are_every_tenth_and_the_last():
    config = EditInfinityConfig()
    assert config.saved(20) == (10, 20)
    assert config.saved(25) == (10, 20, 25)
    assert config.saved(3) == (3,)
    assert config.updates(10) == 10


def test_tiny_runs_in_a_moment():
    assert tiny().prompt.train_textembedding_iter + tiny().lora.train_lora_iter < 10
