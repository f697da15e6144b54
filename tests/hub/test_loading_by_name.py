# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Models that are loaded from the Hub, by their names and revisions."""

import pytest
import torch
from hub_client import run_client
from peft import LoraConfig, get_peft_model
from small_models import make_model


pytestmark = pytest.mark.slow  # every client is a process of its own, which imports the libraries


def test_an_adapter_gets_the_revision_of_its_model_that_it_names(hub, tmp_path):
    run = tmp_path / "run"
    model = make_model()
    model.save_pretrained(run)
    adapted = get_peft_model(model, LoraConfig(task_type="SEQ_2_SEQ_LM", r=2, init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    ids = torch.tensor([[3, 4, 5]])
    with torch.no_grad():
        expected = adapted.eval()(input_ids=ids, decoder_input_ids=ids).logits[0, 0, 0].item()
    code = f"""
        import torch
        from huggingface_hub import CommitOperationAdd
        from safetensors.torch import load_file, save_file
        from hf_xformer.checkpoints import load_model

        run, adapter = Path("{run}"), Path("{tmp_path}/adapter")
        config, weights = run / "config.json", run / "model.safetensors"

        def push():
            files = [CommitOperationAdd(path.name, path) for path in (config, weights)]
            return api.create_commit("tester/revised", files, commit_message="push").oid

        api.create_repo("tester/revised")
        first = push()
        changed = {{name: each + 1 for name, each in load_file(weights).items()}}
        save_file(changed, weights, {{"format": "pt"}})
        push()
        path = adapter / "adapter_config.json"
        named = {{"base_model_name_or_path": "tester/revised", "revision": first}}
        path.write_text(json.dumps(json.loads(path.read_text()) | named))
        ids = torch.tensor([[3, 4, 5]])
        with torch.no_grad():
            logits = load_model(str(adapter)).eval()(input_ids=ids, decoder_input_ids=ids).logits
        answer["logit"] = logits[0, 0, 0].item()
    """
    assert run_client(hub, tmp_path / "machine", code)["logit"] == pytest.approx(expected, abs=1e-5)
