"""The models that the demo serves, and how each is made. Run by create_demo_models.py and create_dummy_model.py."""
