"""What Feast registers. It imports each file of this folder by its name alone, which would make every object a second
time beside the one that our packages import; so `.feastignore` leaves it this file, and your own, only.
"""

from feature_repo import features
from feature_repo.entities import item, user
from feature_repo.offline import bootstrap
from feature_repo.services import ranker
from feature_repo.sources import item_push, user_push
from feature_repo.views import item_state, item_values, user_state, user_values
from freshet.settings import get_settings

for profile in (features.user, features.item):
    bootstrap(get_settings(), profile)

__all__ = ["item", "item_push", "item_state", "item_values", "ranker", "user", "user_push", "user_state", "user_values"]
