from recsparse.models import Popularity
from tests.models.contract import ModelContract


class TestPopularity(ModelContract):
    model = Popularity()
    personalised = False
